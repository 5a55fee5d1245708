"""What comes out of a container becomes safe text, wherever it is cut."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from container_magic.display.streams import StreamDecoder
from container_magic.events import Output
from container_magic.folding import fold
from container_magic.runtime.output import OutputGate
from container_magic.sanitize.escapes import STRING_LIMIT, EscapeFilter, plain_text, safe_text

SGR = re.compile(r"\x1b\[[0-9;:]*m")
CONTROLS = re.compile(r"[\x01-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")
PIECES = st.sampled_from(
    [
        "\x1b",
        "\x1b[",
        "\x1b]",
        "\x1bP",
        "\x9b",
        "\x9d",
        "\x90",
        "\x07",
        "\x1b\\",
        "\x9c",
        "\x18",
        "31;1",
        "0",
        "m",
        "H",
        "?25",
        "l",
        "2J",
        "0;title",
        "8;;http://x",
        "text",
        "é",
        "🐍",
        "\r",
        "\b",
        "\n",
        "\x0c",
        "\0",
        " ",
        "(",
        "B",
    ]
)
NASTY = st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mred\x1b[0m b", "a\x1b[31mred\x1b[0m b"),
        ("\x1b[38;5;208;1mbold\x1b[m", "\x1b[38;5;208;1mbold\x1b[m"),
        ("\x1b[4:3mcurly\x1b[0;39;0m", "\x1b[4:3mcurly\x1b[0;39;0m"),
        ("\x9b31mred\x9bm", "\x1b[31mred\x1b[m"),
        ("up\x1b[2A\x1b[1;1Hhome\x1b[2J\x1b[K", "uphome"),
        ("\x1b[?25lhidden cursor\x1b[?25h\x1b[?1049h", "hidden cursor"),
        ("\x1b[>4;2mkeys", "keys"),
        ("\x1b]0;title\x07text\x1b]2;title\x1b\\", "text"),
        ("\x1b]8;;http://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;cm0gLXJm\x07clipboard", "clipboard"),
        ('\x1bP$q"p\x1b\\answer\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\', "answer"),
        ("\x9d0;title\x9ctext\x90q\x9c", "text"),
        ("\x1bc\x1b7\x1b8\x1b=\x1b(0\x1b#8\x1bMend", "end"),
        ("bell\x07 so\x0e si\x0f enq\x05 del\x7f nel\x85", "bell so si enq del nel"),
        ("50%\r100%\b\n\t\0", "50%\r100%\b\n\t\0"),
        ("form\x0cfeed", "form\nfeed"),
        ("\x1b[31", "[31"),
        ("\x1b[31é", "[31é"),
    ],
)
def test_only_colours_and_styles_are_left(text, shown):
    """SGR stays; cursor moves, strings, private modes and other controls go; text stays."""
    assert safe_text(text) == shown


def test_open_style_is_ended():
    """A style that contained code leaves on does not colour what the notebook shows next."""
    assert safe_text("\x1b[1;31mred") == "\x1b[1;31mred\x1b[0m"


def test_plain_text_has_no_escape():
    """Names and one-line messages carry no colours."""
    assert plain_text("\x1b[31mValue\x1b]0;x\x07Error\x1b[0m") == "ValueError"


def test_string_that_never_ends_hides_nothing():
    """An OSC without an end is shown as text once it is too long, and what follows is shown at once."""
    filtered = EscapeFilter()
    shown = filtered.feed("\x1b]" + "x" * (STRING_LIMIT + 1))
    assert shown == "]" + "x" * (STRING_LIMIT + 1)
    assert filtered.feed("next") == "next"


@given(NASTY)
def test_no_control_but_sgr_is_left(text):
    """Whatever comes, no escape but a whole SGR sequence and no other control is in the result."""
    assert not CONTROLS.search(SGR.sub("", safe_text(text)))


@given(NASTY, st.data())
def test_cuts_between_pieces_make_no_difference(text, data):
    """The same text gives the same result however it is cut."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    filtered = EscapeFilter()
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(map(filtered.feed, pieces)) + filtered.finish() == safe_text(text)


@given(st.binary(max_size=60) | NASTY.map(lambda text: text.encode()))
def test_bytes_cut_at_every_place_decode_alike(data):
    """One byte at a time gives the text of all at once: characters and sequences stay whole."""
    decoder = StreamDecoder()
    shown = "".join(decoder.feed(Output(stream="stdout", data=bytes([byte]))) for byte in data) + decoder.finish()
    assert shown == safe_text(data.decode("utf-8", "replace"))


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_plain_text_passes_untouched(text):
    """Text without controls is shown as it is."""
    assert safe_text(text) == text


def test_gap_is_marked_and_ends_what_was_unfinished():
    """A half character and a half sequence before a gap do not swallow the marker or what follows."""
    decoder = StreamDecoder()
    shown = decoder.feed(Output(stream="stdout", data=b"head\x1b]0;ti\xf0\x9f"))
    shown += decoder.feed(Output(stream="stdout", data=b"\x90\x8dtail", dropped_bytes=1234567))
    assert shown == "head]0;ti\ufffd\n[... 1,234,567 bytes not shown ...]\n\ufffd\ufffdtail"


def test_stream_and_report_mark_the_same_gap():
    """The notebook and the report say with the same words what was left out."""
    events = [Output(stream="stdout", data=b"a"), Output(stream="stdout", data=b"b", dropped_bytes=7)]
    decoder = StreamDecoder()
    assert "".join(map(decoder.feed, events)) + decoder.finish() == fold(events).stdout


@pytest.mark.alone
@pytest.mark.parametrize("piece", ["\x1b]", "\x9d", "\x1b[1", "\x1b", "\x1b]" + "x" * 4000, "\x1b[31m"])
def test_floods_of_introducers_are_linear(piece):
    """A megabyte of the worst input takes no more than seconds."""
    started = time.process_time()
    safe_text(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 5


def test_what_an_earlier_gate_left_out_is_missing_where_it_was():
    """A page's own bound stands behind that of ``--max-output``: its mark stays between head and tail."""
    first, page, shown = OutputGate(100), OutputGate(10_000), []
    for output in [*first.feed("stdout", b"h" * 200), *first.finish()]:
        if output.dropped_bytes:
            page.skip(output.stream, output.dropped_bytes)
        shown += page.feed(output.stream, output.data)
    shown += page.finish()
    assert [(output.data, output.dropped_bytes) for output in shown] == [(b"h" * 75, 0), (b"h" * 25, 100)]
