"""Text as tokens come: together it is the whole text, and no stop string or half a character ever shows."""

from hypothesis import given
from hypothesis import strategies as st

from engine.serving.detokenizer import Detokenizer


def decode(token_ids):
    """Tokens that are the bytes of UTF-8: characters of several tokens, as byte-level tokenizers have them."""
    return bytes(token_ids).decode("utf-8", errors="replace")


def run(text, stop=()):
    """The pieces handed out for a text, and the detokenizer after it."""
    detokenizer, pieces = Detokenizer(decode, stop), []
    for byte in text.encode():
        detokenizer.push(byte)
        pieces.append(detokenizer.take())
        if detokenizer.stopped:
            return pieces, detokenizer
    detokenizer.finish()
    return [*pieces, detokenizer.take()], detokenizer


letters = st.text(st.sampled_from("abß😀 \n"), max_size=40)


@given(text=letters)
def test_pieces_make_up_the_text(text):
    pieces, detokenizer = run(text)
    assert "".join(pieces) == detokenizer.text == text
    assert not any("\ufffd" in piece for piece in pieces)


@given(text=letters, stop=st.lists(st.text(st.sampled_from("abß😀"), min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_stop_string_that_completes_first(text, stop):
    pieces, detokenizer = run(text, stop)
    # What a reader who sees one character more at a time would do.
    expected = text
    for length in range(len(text) + 1):
        found = [at for s in stop if (at := text[:length].find(s)) >= 0]
        if found:
            expected = text[: min(found)]
            break
    assert "".join(pieces) == detokenizer.text == expected
    assert detokenizer.stopped == (expected != text)
    shown = ""
    for piece in pieces:
        shown += piece
        assert expected.startswith(shown)


def test_an_unfinished_stop_string_is_held_back_and_then_shown():
    pieces, _ = run("abcx", ["abcd"])
    assert pieces == ["", "", "", "abcx", ""]


def test_an_unfinished_character_shows_at_the_end():
    detokenizer = Detokenizer(decode)
    for byte in "a😀".encode()[:-1]:
        detokenizer.push(byte)
    assert detokenizer.take() == "a"
    detokenizer.finish()
    assert detokenizer.text == "a\ufffd"


def test_a_stop_string_that_may_not_stop_is_text():
    detokenizer = Detokenizer(decode, ["b"])
    for byte, may_stop in zip(b"abab", (False, False, True, True), strict=True):
        detokenizer.push(byte, may_stop)
    assert detokenizer.stopped and detokenizer.text == "aba"
