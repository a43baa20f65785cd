"""k-means whose groups do not depend on the order of the points.

Source: Lloyd 1982, Least squares quantization in PCM; first centres as in Arthur and Vassilvitskii
2007, k-means++. Here the points are sorted before anything is drawn, so the same points and the
same generator give the same groups however the training set was shuffled.
"""

import torch
from torch import Tensor


def cluster(
    points: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    starts: int = 1,
    max_rounds: int = 50,
) -> Tensor:
    """Return (R,) int64 the group of each point, from 0 on and without gaps.

    Args:
        points: (R, E) float. Equal points are always in one group.
        num_clusters: The most groups there may be; there are fewer if fewer points differ.
        generator: Draws the first centres, on the CPU.
        starts: How often to begin anew; the groups with the least squared distances to their means
            are returned.
        max_rounds: Most moves of the centres; fewer when no point changes its group any more.
    """
    distinct, place, counts = torch.unique(
        points.detach().to("cpu", torch.float32), dim=0, return_inverse=True, return_counts=True
    )
    counts = counts[:, None].float()
    num_clusters = min(num_clusters, len(distinct))
    best, least = None, torch.inf
    for _ in range(starts):
        labels, spread = _settle(distinct, counts, num_clusters, generator, max_rounds)
        if best is None or spread < least:
            best, least = labels, spread
    assert best is not None
    without_gaps = best.unique(return_inverse=True)[1]
    return without_gaps[place].to(points.device)


def nearest(points: Tensor, centers: Tensor) -> Tensor:
    """Return (R,) int64, which of the (G, E) centres is nearest to each of the (R, E) points."""
    # The fast way through a matrix product finds equal points a little apart.
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points, centers, compute_mode=mode).argmin(dim=1)


def group_sums(rows: Tensor, labels: Tensor, num_groups: int) -> Tensor:
    """Return (G, E), the sum of the (R, E) rows of each group; zero for a group without rows."""
    return rows.new_zeros(num_groups, rows.shape[1]).index_add_(0, labels, rows)


def _settle(
    points: Tensor,
    counts: Tensor,
    num_clusters: int,
    generator: torch.Generator,
    max_rounds: int,
) -> tuple[Tensor, float]:
    """Return the groups of points that stand there (R, 1) times, and their squared distances."""
    centers = _first_centers(points, counts[:, 0], num_clusters, generator)
    labels = nearest(points, centers)
    for _ in range(max_rounds):
        # A group without points keeps its centre; the points may come back.
        sizes = group_sums(counts, labels, num_clusters)
        means = group_sums(points * counts, labels, num_clusters) / sizes.clamp(min=1)
        centers = torch.where(sizes > 0, means, centers)
        moved = nearest(points, centers)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels, float(((points - centers[labels]).square() * counts).sum())


def _first_centers(
    points: Tensor, counts: Tensor, num_clusters: int, generator: torch.Generator
) -> Tensor:
    """Draw points as centres, the likelier the farther they are from those drawn before."""
    chance = counts
    distances = torch.full_like(chance, torch.inf)
    chosen: list[Tensor] = []
    for _ in range(num_clusters):
        index = torch.multinomial(chance, 1, generator=generator)
        chosen.append(index)
        distances = torch.minimum(distances, (points - points[index]).square().sum(dim=1))
        chance = counts * distances
    return points[torch.cat(chosen)]
