"""What a domain's training images looked like, as a few keys and values of each.

Source: Shen et al. 2023, MoViT, arXiv:2303.15553, whose code is not published: rows that belong to
a sample and follow it by a moving average are its idea, everything below that is ours.

The memory is a module of its own and never a part of a network. Training hands rows of it to
`MemoryAttention`, so the optimiser, the moving average of the weights and the network's files
cannot touch or carry them. It is saved beside the network, with its own `state_dict`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeseg.adapt.memory_clusters import cluster, group_sums, nearest
from edgeseg.errors import ConfigError, DataError, DivergedError, WeightsError

_ABSENT = -1e4  # nothing is left of exp(-1e4), and float16 can hold it


@dataclass(frozen=True)
class MemoryRows:
    """Keys and values that the tokens of B images attend to.

    Attributes:
        keys: (B, R, E) float, or (1, R, E), the same for all images.
        values: As `keys`.
        counts: (R,) float, how many equal rows each stands for. A row that stands for none is
            never attended to.
    """

    keys: Tensor
    values: Tensor
    counts: Tensor

    @property
    def log_counts(self) -> Tensor:
        """(R,) float, what to add to scaled scores: n equal rows weigh n times as much as one."""
        return self.counts.log().clamp(min=_ABSENT)

    def uncounted(self) -> "MemoryRows":
        """Return the same rows, each standing for one: what the counts are worth."""
        return MemoryRows(self.keys, self.values, (self.counts > 0).to(self.counts.dtype))


class AttentionMemory(nn.Module):
    """Rows of keys and values of every training sample.

    The tokens of an image become a few rows by k-means of their keys; a row holds the mean key and
    the mean value of a group of tokens. Unlike cells of a coarser grid, a group keeps small objects
    apart from the background, and it is the same group when the image is flipped or cropped: a
    later view of the sample is sorted into the groups that are stored, and each row moves towards
    the mean of what it was given. A sample is known by its name, so neither the order of a batch
    nor its augmentation matters; names are kept as hashes only.

    All is float32 buffers without gradients. A memory that is loaded must be of the same samples.

    Args:
        sample_names: Name of every training sample, each once, at least two: a sample never
            attends to rows of its own.
        rows_per_sample: Rows of a sample, M. An image with fewer different tokens repeats some.
        row_width: Width of keys and values, E.
        decay: Share of a row that is kept when its sample is seen again, in [0, 1).

    Raises:
        DataError: Fewer than two samples, or a name twice.
        ConfigError: A number is out of range.
    """

    keys: Tensor
    values: Tensor
    written: Tensor
    sample_hashes: Tensor

    def __init__(
        self,
        sample_names: Sequence[str],
        row_width: int,
        rows_per_sample: int = 8,
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        _check_names(sample_names)
        if row_width < 1 or rows_per_sample < 1 or not 0 <= decay < 1:
            raise ConfigError(
                "row_width and rows_per_sample must be positive and decay in [0, 1), got "
                f"{row_width}, {rows_per_sample} and {decay}; try 64, 8 and 0.9"
            )
        self.decay = decay
        shape = len(sample_names), rows_per_sample, row_width
        self.register_buffer("keys", torch.zeros(shape))
        self.register_buffer("values", torch.zeros(shape))
        self.register_buffer("written", torch.zeros(shape[0], dtype=torch.bool))
        self.register_buffer("sample_hashes", torch.tensor([_hash(name) for name in sample_names]))
        self.register_load_state_dict_pre_hook(_refuse_other_samples)

    @torch.no_grad()
    def write(
        self,
        sample_names: Sequence[str],
        keys: Tensor,
        values: Tensor,
        content: Tensor | None = None,
    ) -> None:
        """Store what a batch of images looks like: copied at first, averaged later.

        Args:
            sample_names: Of the B images.
            keys: (B, N, E) float, of every token, as `MemoryAttention.facts` returns them.
            values: As `keys`.
            content: (B, N) bool, false for tokens on padding, which are left out; an image too thin
                to have any token of its own is taken with its padding.

        Raises:
            DataError: A name is unknown, or shapes do not fit.
            DivergedError: A key or value is not finite. Nothing is stored.
        """
        places = self._places(sample_names)
        self._check_tokens(len(places), keys, values)
        for index, place in enumerate(places.tolist()):
            kept = torch.ones(keys.shape[1], dtype=torch.bool, device=keys.device)
            if content is not None and bool(content[index].any()):
                kept = content[index]
            self._write_sample(place, keys[index][kept].float(), values[index][kept].float())

    def retrieve(
        self, sample_names: Sequence[str], num_rows: int, generator: torch.Generator
    ) -> MemoryRows | None:
        """Draw rows for a batch of training images, for each image among those of other samples.

        Args:
            sample_names: Of the B images.
            num_rows: Rows an image, R; fewer if one of the images has no more to draw from.
            generator: Draws the rows, on the CPU.

        Returns:
            (B, R, E) copies, none twice for an image; None as long as an image of the batch has no
            written row but its own. Writing all samples once before training avoids that.

        Raises:
            DataError: A name is unknown. Images that are not trained on attend to `rows()`.
        """
        places = self._places(sample_names).cpu()
        row_samples = torch.arange(len(self.written)).repeat_interleave(self.keys.shape[1])
        allowed = self.written.cpu()[row_samples] & (row_samples != places[:, None])  # (B, N * M)
        count = min(num_rows, int(allowed.sum(dim=1).min()))
        if count < 1:
            return None
        lots = torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0)
        chosen = lots.topk(count, dim=1).indices.to(self.keys.device)  # (B, R)
        return MemoryRows(
            self.keys.flatten(0, 1)[chosen],
            self.values.flatten(0, 1)[chosen],
            torch.ones(count, device=self.keys.device),
        )

    def rows(self) -> MemoryRows:
        """Return all written rows, (1, R, E) copies, for images that are not trained on.

        Raises:
            DataError: Nothing was written yet.
        """
        if not bool(self.written.any()):
            raise DataError("the memory holds no rows; write the training samples into it first")
        keys = self.keys[self.written].flatten(0, 1)
        values = self.values[self.written].flatten(0, 1)
        return MemoryRows(keys[None], values[None], keys.new_ones(len(keys)))

    def row_samples(self) -> Tensor:
        """Return (R,) int64, the number of the sample that each of `rows()` belongs to."""
        return self.written.nonzero()[:, 0].repeat_interleave(self.keys.shape[1])

    def _places(self, sample_names: Sequence[str]) -> Tensor:
        """Return (B,) int64, where each sample stands."""
        hashes = torch.tensor([_hash(name) for name in sample_names], dtype=torch.int64)
        found = hashes.to(self.sample_hashes.device)[:, None] == self.sample_hashes
        for name, is_known in zip(sample_names, found.any(dim=1).tolist(), strict=True):
            if not is_known:
                raise DataError(
                    f"{name!r} is none of the memory's {len(self.written)} samples; make the "
                    "memory with the names of all training samples"
                )
        return found.int().argmax(dim=1)

    def _check_tokens(self, num_images: int, keys: Tensor, values: Tensor) -> None:
        width = self.keys.shape[2]
        fits = keys.ndim == 3 and keys.shape[0] == num_images and keys.shape[2] == width
        if not fits or values.shape != keys.shape:
            raise DataError(
                f"keys and values must be ({num_images}, N, {width}) for {num_images} names, got "
                f"{tuple(keys.shape)} and {tuple(values.shape)}; take them from "
                "MemoryAttention.facts"
            )
        if not bool(torch.isfinite(keys).all() & torch.isfinite(values).all()):
            raise DivergedError(
                "keys or values of a training sample are not finite; lower learning_rate and resume"
            )

    def _write_sample(self, place: int, keys: Tensor, values: Tensor) -> None:
        num_rows = self.keys.shape[1]
        if bool(self.written[place]):
            labels = nearest(keys, self.keys[place])
            sizes = labels.bincount(minlength=num_rows)[:, None]
            # A row that is nearest to no token of this view waits for the next.
            moving = (1 - self.decay) * (sizes > 0)  # (M, 1)
            for stored, tokens in ((self.keys, keys), (self.values, values)):
                means = group_sums(tokens, labels, num_rows) / sizes.clamp(min=1)
                stored[place] = (1 - moving) * stored[place] + moving * means
            return
        # A fixed seed: the same tokens become the same rows, whenever they come.
        labels = cluster(keys, num_rows, torch.Generator().manual_seed(0))
        sizes = labels.bincount()[:, None]
        group_of_row = torch.arange(num_rows, device=keys.device) % len(sizes)
        for stored, tokens in ((self.keys, keys), (self.values, values)):
            stored[place] = (group_sums(tokens, labels, len(sizes)) / sizes)[group_of_row]
        self.written[place] = True


def _check_names(sample_names: Sequence[str]) -> None:
    if len(sample_names) < 2:
        raise DataError(
            "a memory needs at least 2 samples, since none attends to its own rows, got "
            f"{len(sample_names)}; add images or train without a memory"
        )
    if len(set(sample_names)) < len(sample_names):
        raise DataError(
            f"every sample needs a name of its own, got {len(sample_names)} names, "
            f"{len(set(sample_names))} of them different; use paths relative to the data folder"
        )


def _hash(name: str) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def _refuse_other_samples(
    module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object
) -> None:
    """Raise unless a state that is loaded is of the samples that the memory was made for."""
    assert isinstance(module, AttentionMemory)
    saved = state.get(f"{prefix}sample_hashes")
    if saved is None:
        return  # torch names what is missing
    own = set(module.sample_hashes.tolist())
    if set(saved.tolist()) != own:
        raise WeightsError(
            f"the saved memory is of other training samples: {len(set(saved.tolist()) & own)} of "
            f"{len(own)} are known to it; resume with the samples it was saved with"
        )
    shape = state.get(f"{prefix}keys", module.keys).shape
    if shape != module.keys.shape:
        raise WeightsError(
            f"the saved memory has {shape[1]} rows a sample of width {shape[2]}, expected "
            f"{module.keys.shape[1]} of {module.keys.shape[2]}; resume with the same settings"
        )
