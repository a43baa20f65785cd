"""What an evaluation measures."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Start = Literal["box", "center", "click"]
"""First prompt of an object: the box around it, its point farthest from the border, or that point
with the box that the model itself proposes for it."""

PromptSet = Annotated[str, StringConstraints(pattern=r"^(box|center|click)(\+[1-9])?$")]
"""A first prompt and a number of refinement clicks, such as "box" or "center+2"."""


def start_of(prompt_set: str) -> Start:
    """Return the first prompt of a prompt set.

    >>> start_of("center+2")
    'center'
    """
    start: Start = next(s for s in get_args(Start) if prompt_set.startswith(s))
    return start


def num_clicks_of(prompt_set: str) -> int:
    """Return the number of refinement clicks of a prompt set.

    >>> num_clicks_of("center+2"), num_clicks_of("box")
    (2, 0)
    """
    return int(prompt_set.partition("+")[2] or 0)


class GrabCutConfig(BaseModel):
    """GrabCut (OpenCV) from the same boxes, a floor without learning. It is slow.

    Attributes:
        max_objects_a_domain: Objects measured in each domain.
        max_objects_an_image: Objects measured in each image, so that many images take part.
        iterations: Iterations of GrabCut.
        longest_side: Longest side of the image GrabCut works on, in pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_objects_a_domain: int = Field(default=40, ge=1)
    max_objects_an_image: int = Field(default=2, ge=1)
    iterations: int = Field(default=5, ge=1)
    longest_side: int = Field(default=320, ge=32)


class EvaluationConfig(BaseModel):
    """Settings of an evaluation; two runs with equal settings measure the same objects.

    Attributes:
        prompt_sets: Prompts to measure, each "box", "center" or "click" with "+k" refinement
            clicks; "click" is for models with region proposals.
        max_images_a_domain: Images drawn from each domain; None takes all.
        max_objects_an_image: Objects drawn from each image; None takes all.
        min_area_px: Smallest object that counts, in pixels of the original image.
        boundary: Measure boundary IoU too; it takes as long as the rest of the arithmetic.
        feed_mask: Give the low-res logits of the answer so far back as a mask prompt with each
            refinement click.
        grabcut: GrabCut as a floor; None leaves it out.
        seed: Of the choice of images and objects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt_sets: tuple[PromptSet, ...] = Field(
        default=("box", "box+1", "box+2", "center", "center+1", "center+2"), min_length=1
    )
    max_images_a_domain: int | None = Field(default=None, ge=1)
    max_objects_an_image: int | None = Field(default=None, ge=1)
    min_area_px: int = Field(default=1, ge=1)
    boundary: bool = True
    feed_mask: bool = False
    grabcut: GrabCutConfig | None = GrabCutConfig()
    seed: int = Field(default=0, ge=0)

    def starts(self) -> dict[Start, int]:
        """Return the first prompts that are asked for, with the most clicks that follow each.

        >>> EvaluationConfig(prompt_sets=("center+2", "box")).starts()
        {'center': 2, 'box': 0}
        """
        starts: dict[Start, int] = {}
        for prompt_set in self.prompt_sets:
            start = start_of(prompt_set)
            starts[start] = max(starts.get(start, 0), num_clicks_of(prompt_set))
        return starts
