"""How a pack is built: its kind, and what of the decoder it may change."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from edgeseg.distill.stage_config import Table
from edgeseg.errors import ConfigError
from edgeseg.validation import problems_of


class _PackSettings(Table):
    """What all kinds share.

    Attributes:
        decoder: "frozen" leaves the mask decoder as it is; "low_rank" updates its matrices, a few
            thousand numbers each; "full" trains all of it, which is 16 MB a domain and forgets the
            most.
        decoder_rank: Rank of the updates.
    """

    decoder: Literal["frozen", "low_rank", "full"] = "frozen"
    decoder_rank: int = Field(default=4, ge=1, le=64)


class ConvolutionalSettings(_PackSettings):
    """CAD, a network beside the encoder; see `convolutional_adapter`.

    Attributes:
        form: "lite" for devices, "published" to reproduce the paper.
        width: Channels of the lite form.
    """

    kind: Literal["convolutional"] = "convolutional"
    form: Literal["lite", "published"] = "lite"
    width: int = Field(default=32, ge=1, le=512)


class NeckDeltaSettings(_PackSettings):
    """Updates of the encoder's neck that cost nothing once merged; see `neck_delta`.

    Attributes:
        rank: Rank of each update.
    """

    kind: Literal["neck_delta"] = "neck_delta"
    rank: int = Field(default=8, ge=1, le=256)


class MemorySettings(_PackSettings):
    """A memory of attention for few images; see `memory_attention`.

    Attributes:
        num_heads: Heads of its attention.
        head_width: Channels of each head.
        rows_a_sample: Rows that are remembered of each training image.
        average: Share of a row that is kept when its image is seen again.
        retrieved_share: Share of the rows that a step looks at.
        num_prototypes: Rows that remain in the end.
        log_counts: Weigh a prototype by the rows it stands for; without it is for comparison.
    """

    kind: Literal["memory"] = "memory"
    num_heads: int = Field(default=4, ge=1, le=16)
    head_width: int = Field(default=32, ge=4, le=128)
    rows_a_sample: int = Field(default=8, ge=1, le=256)
    average: float = Field(default=0.9, ge=0, lt=1)
    retrieved_share: float = Field(default=0.5, gt=0, le=1)
    num_prototypes: int = Field(default=32, ge=1, le=64)
    log_counts: bool = True


class DecoderSettings(_PackSettings):
    """The mask decoder alone learns, for comparison."""

    kind: Literal["decoder"] = "decoder"
    decoder: Literal["low_rank", "full"] = "low_rank"


PackSettings = ConvolutionalSettings | NeckDeltaSettings | MemorySettings | DecoderSettings
_ANY: TypeAdapter[PackSettings] = TypeAdapter(Annotated[PackSettings, Field(discriminator="kind")])


def parse_settings(values: dict[str, Any], source: str) -> PackSettings:
    """Validate the settings of a pack; see `PackManifest.settings`.

    Args:
        values: With "kind".
        source: Where they come from, for messages.

    Raises:
        ConfigError: The kind or a setting is unknown, or a value is out of range.
    """
    try:
        return _ANY.validate_python(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {problems_of(error)}") from error
