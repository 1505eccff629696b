"""Text from tokens as they come: never half a character, never a part of a stop string."""

from collections.abc import Callable, Sequence

_UNFINISHED = "\ufffd"  # what a decoder gives for bytes that are no whole character yet

Decode = Callable[[Sequence[int]], str]


class Detokenizer:
    """The text of one request, growing token by token.

    `text` is all text so far; `stopped` is True once a stop string has shown, and then `text` ends before it.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self.text = ""
        self.stopped = False
        self._decode = decode
        self._stop = tuple(stop)
        self._token_ids: list[int] = []
        self._window = 0  # first token of the decoded window: a token's text can depend on the one before it
        self._read = 0  # tokens whose text is in `text`
        self._taken = 0  # characters that `take` has handed out

    def push(self, token_id: int, may_stop: bool = True) -> None:
        """Add one token; a stop string that it completes counts only where it `may_stop`."""
        assert not self.stopped
        self._token_ids.append(token_id)
        known = self._decode(self._token_ids[self._window : self._read])
        extended = self._decode(self._token_ids[self._window :])
        if len(extended) > len(known) and not extended.endswith(_UNFINISHED):
            self._window, self._read = self._read, len(self._token_ids)
            self._append(extended[len(known) :], may_stop)

    def finish(self) -> None:
        """No token follows: what is held back as unfinished is text now."""
        if not self.stopped:
            known = self._decode(self._token_ids[self._window : self._read])
            self._append(self._decode(self._token_ids[self._window :])[len(known) :], may_stop=False)
            self._stop = ()

    def take(self) -> str:
        """Text that is new since the last call and cannot turn out to begin a stop string."""
        end = len(self.text) if self.stopped else len(self.text) - self._held_back()
        new = self.text[self._taken : end]
        self._taken = max(self._taken, end)
        return new

    def _append(self, piece: str, may_stop: bool) -> None:
        before = len(self.text)
        self.text += piece
        if not may_stop:
            return
        found = [at for stop in self._stop if (at := self.text.find(stop, max(0, before - len(stop) + 1))) >= 0]
        if found:
            self.text = self.text[: min(found)]
            self.stopped = True

    def _held_back(self) -> int:
        """Length of the longest end of the text that begins a stop string."""
        for length in range(min(len(self.text), max(map(len, self._stop), default=1) - 1), 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stop):
                return length
        return 0
