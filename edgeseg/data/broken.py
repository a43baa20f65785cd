"""What could not be read: reported, counted, and a reason to stop when it is too much."""

import logging
from collections.abc import Iterable

from edgeseg.errors import ConfigError, DataError

_LOGGER = logging.getLogger("edgeseg.data")
_NUM_EXAMPLES = 5


class BrokenItems:
    """Counts the distinct records that were read well and those that were broken.

    It lives in the main process. Worker processes send the messages of what they skipped along with
    their batches, so every count is complete and the limit holds for all workers together.

    Args:
        max_share: Largest share of broken records, 0 to 1, among the distinct records touched.
        min_broken: So many distinct broken records are needed before the share is looked at; a
            single broken image in the first batch says nothing about the data set.

    Raises:
        ConfigError: `max_share` or `min_broken` is out of range.
    """

    def __init__(self, max_share: float = 0.01, min_broken: int = 5) -> None:
        if not 0 <= max_share <= 1 or min_broken < 1:
            raise ConfigError(
                "max_share must be between 0 and 1 and min_broken at least 1, "
                f"got {max_share} and {min_broken}"
            )
        self.max_share = max_share
        self.min_broken = min_broken
        self._good: set[str] = set()
        self._broken: dict[str, None] = {}  # a set that keeps its order

    @property
    def num_broken(self) -> int:
        """Number of distinct broken records."""
        return len(self._broken)

    @property
    def num_touched(self) -> int:
        """Number of distinct records that were read or tried."""
        return len(self._good) + len(self._broken)

    @property
    def messages(self) -> tuple[str, ...]:
        """One message a broken record, in the order they were found."""
        return tuple(self._broken)

    def count(self, names: Iterable[str] = (), broken: Iterable[str] = ()) -> None:
        """Count records; a record that comes again, in a later epoch, is counted once.

        Args:
            names: Records that were read well.
            broken: Messages of records that were not; each names its file.

        Raises:
            DataError: More than `max_share` of the records touched are broken.
        """
        self._good.update(names)
        for message in broken:
            if message not in self._broken:
                self._broken[message] = None
                _LOGGER.warning("skipped: %s", message)
        self._check()

    def _check(self) -> None:
        if self.num_broken < self.min_broken:
            return
        share = self.num_broken / self.num_touched
        if share > self.max_share:
            first = "; ".join(self.messages[:_NUM_EXAMPLES])
            raise DataError(
                f"{self.num_broken} of {self.num_touched} records ({share:.1%}) are broken, more "
                f"than the allowed {self.max_share:.1%}; repair or remove them, or allow a larger "
                f"share. The first ones: {first}"
            )
