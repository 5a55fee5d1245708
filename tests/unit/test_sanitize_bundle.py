"""MIME bundles of contained code: what is shown of them, what is noted, and that nothing breaks the filter."""

import base64
import html as standard_html
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page import Page, assert_inert, assert_picture, encoded, words
from PIL import Image, PngImagePlugin

from container_magic.sanitize import data as json_data
from container_magic.sanitize import images
from container_magic.sanitize.bundle import NOTES, sanitize_bundle
from container_magic.sanitize.frame import POLICY
from container_magic.sanitize.text import sanitize_traceback

MODES = ("text", "safe", "iframe")


def picture(kind="PNG", size=(3, 2), mode="RGB", **options):
    """Return the bytes of a picture."""
    made = io.BytesIO()
    Image.new(mode, size, 1).save(made, kind, **options)
    return made.getvalue()


def clean(data, metadata=None, mode="safe"):
    """Return the filtered bundle."""
    return sanitize_bundle(data, metadata or {}, mode=mode)


def decoded(text):
    """Return the picture behind base64 text."""
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    image.load()
    return image


def test_text_keeps_its_colours_only():
    """Escape sequences of text/plain are reduced to colours; bytes and lists of lines are text, too."""
    assert clean({"text/plain": "\x1b[31mred\x1b[0m\x1b[2J"}).data == {"text/plain": "\x1b[31mred\x1b[0m"}
    assert clean({"text/plain": b"\xffx"}).data == {"text/plain": "\ufffdx"}
    assert clean({"text/plain": ["a\n", "b"]}).data == {"text/plain": "a\nb"}


def test_long_text_is_shown_from_both_ends():
    """Of text above 1 MiB the head and the tail stay, around the marker that says how much is missing."""
    shown = clean({"text/plain": "ab" + "é" * (1 << 20) + "yz"}).data["text/plain"]
    assert shown.startswith("abé")
    assert shown.endswith("éyz")
    assert "bytes not shown ...]" in shown
    assert len(shown.encode()) < (1 << 20) + 100


def test_half_surrogates_become_replacement_characters():
    """What cannot be written as UTF-8 is replaced."""
    shown = clean({"text/plain": "a\ud800b", "application/json": {"\udfff": "\ud800"}}).data
    assert shown == {"text/plain": "a\ufffdb", "application/json": {"\ufffd": "\ufffd"}}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("mime", "kind"), [("image/png", "PNG"), ("image/jpeg", "JPEG")])
def test_picture_is_only_pixels(mime, kind, mode):
    """Trailing data, comments and metadata are gone; the pixels and the size are there."""
    info = PngImagePlugin.PngInfo()
    info.add_text("note", "<script>alert(1)</script>")
    options = {"pnginfo": info} if kind == "PNG" else {"comment": b"<script>alert(1)</script>"}
    data = picture(kind, dpi=(72, 72), icc_profile=b"<script>", **options) + b"PK\x03\x04<script>alert(1)</script>"
    for value in (data, encoded(data), base64.encodebytes(data).decode()):
        shown = clean({mime: value}, mode=mode)
        assert set(shown.data) == {mime}
        assert shown.notes == ()
        assert b"script" not in base64.b64decode(shown.data[mime])
        image = decoded(shown.data[mime])
        assert (image.format, image.size) == (kind, (3, 2))
        assert not {"dpi", "comment", "note", "icc_profile", "exif"} & set(image.info)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_every_mode_is_shown(mode):
    """Palettes, grey, transparency and sixteen bits survive as pixels."""
    before = Image.new(mode, (2, 2), 1)
    after = decoded(clean({"image/png": picture(mode=mode, size=(2, 2))}).data["image/png"])
    assert after.convert("RGBA").tobytes() == before.convert("RGBA").tobytes()


def test_transparent_palette_stays_transparent():
    """A transparent colour of a palette is transparency of its pixels."""
    made = io.BytesIO()
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(made, "PNG", transparency=1)
    assert decoded(clean({"image/png": made.getvalue()}).data["image/png"]).getpixel((0, 0)) == (255, 0, 0, 0)


def test_rotated_photo_stands_upright():
    """The orientation that metadata gave a JPEG is in its pixels when the metadata is gone."""
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decoded(clean({"image/jpeg": picture("JPEG", exif=exif)}).data["image/jpeg"]).size == (2, 3)


def test_gif_is_a_still_picture():
    """Of a GIF the first frame is shown, as PNG, and a note says that it stands still."""
    shown = clean({"image/gif": encoded(picture("GIF", mode="P"))})
    assert decoded(shown.data["image/png"]).format == "PNG"
    assert shown.notes == ("image/gif is shown as a still picture",)


@pytest.mark.parametrize(
    ("mime", "value"),
    [
        ("image/png", picture("JPEG")),
        ("image/jpeg", picture("PNG")),
        ("image/png", picture()[:40]),
        ("image/jpeg", picture("JPEG", size=(99, 99))[:400]),
        ("image/png", b""),
        ("image/png", "not base64!"),
        ("image/png", "é"),
        ("image/png", 7),
        ("image/png", None),
        ("image/png", b"<svg onload=alert(1)>"),
        ("image/gif", b"GIF89a" + b"\xff" * 99),
        ("image/webp", "AAAA"),
        ("image/jpeg", picture("JPEG") + b"\xff\xda" * 100),
        ("image/png", b"x" * (images.IMAGE_BYTES + 1)),
    ],
)
def test_what_is_no_picture_is_dropped_with_a_note(mime, value):
    """Other formats, halves, wrong encodings and other types are named and not shown."""
    shown = clean({mime: value})
    assert set(shown.data) == {"text/plain"}
    assert shown.notes[0].startswith(f"{mime} was not shown: ")
    assert shown.data["text/plain"] == shown.notes[0]


def test_pixels_of_a_bundle_are_bounded(monkeypatch):
    """All pictures of a bundle share one budget, so that many small files make no giant."""
    monkeypatch.setattr(images, "BUNDLE_PIXELS", 10)
    shown = clean({"image/png": picture(), "image/jpeg": picture("JPEG")})
    assert set(shown.data) == {"image/png"}
    assert "pixels together" in shown.notes[0]


def test_decompression_bomb_is_not_decoded():
    """A picture of a few kilobytes that would fill the memory is refused by what its header says."""
    shown = clean({"image/png": picture(mode="1", size=(9000, 9000))})
    assert "pixels together" in shown.notes[0]


@pytest.mark.parametrize("mode", MODES)
def test_svg_is_an_image(mode):
    """SVG is never inline: it stands in an image, where no script runs, and cannot leave its attribute."""
    svg = "<svg onload='alert(1)'><script>alert(1)</script>\"><img src=x onerror=alert(1)></svg>"
    shown = clean({"image/svg+xml": svg}, {"image/svg+xml": {"width": 20, "height": "x"}}, mode)
    (image,) = assert_inert(shown.data["text/html"]).find("img")
    assert (image["width"], "height" in image) == ("20", False)
    assert base64.b64decode(image["src"].partition(",")[2]).decode() == svg


@pytest.mark.parametrize(
    "value", ["<!DOCTYPE x [<!ENTITY a 'b'>]><svg/>", "<svg/>" + " " * images.SVG_BYTES, "no picture", 7]
)
def test_svg_that_is_none_or_swells_is_dropped(value):
    """Other text, entities and overlong text are refused."""
    assert set(clean({"image/svg+xml": value}).data) == {"text/plain"}


def frames(html):
    """Return the attributes of the one frame that HTML consists of, and the document in it."""
    page = Page(html)
    assert [tag for tag, _ in page.elements] == ["iframe"]
    assert not page.text.strip()
    return page.find("iframe")[0]


@pytest.mark.parametrize(
    "value",
    [
        "<p>x</p><script>draw()</script>",
        '"></iframe><script>alert(1)</script>',
        "'&quot;&gt;</iframe><b>",
        "-->]]>\0</srcdoc>",
    ],
)
def test_frame_is_cut_off(value):
    """Scripts run in a frame of a foreign origin without network; its text cannot leave the attribute."""
    outer = frames(clean({"text/html": value}, mode="iframe").data["text/html"])
    assert outer["sandbox"] == "allow-scripts"
    assert not {"src", "allow", "allowfullscreen", "name"} & set(outer)
    middle = Page(outer["srcdoc"])
    assert [tag for tag, _ in middle.elements] == ["meta", "meta", "meta", "meta", "style", "iframe"]
    (inner,) = middle.find("iframe")
    assert inner["sandbox"] == "allow-scripts"
    for document in (outer["srcdoc"], inner["srcdoc"]):
        assert Page(document).find("meta")[1] == {"http-equiv": "Content-Security-Policy", "content": POLICY}
    assert inner["srcdoc"].endswith(value.replace("\0", ""))
    assert "default-src 'none'" in POLICY
    assert "frame-src 'none'" in POLICY
    assert "http" not in POLICY


def test_frame_has_the_size_that_metadata_asks_for():
    """Width and height are numbers within bounds, or the defaults."""
    sized = {"text/html": {"width": 300, "height": 200}}
    assert "width:300px;height:200px" in frames(clean({"text/html": "x"}, sized, "iframe").data["text/html"])["style"]
    hostile = {"text/html": {"width": '1"onload="x', "height": 1e300}}
    style = frames(clean({"text/html": "x"}, hostile, "iframe").data["text/html"])["style"]
    assert style == "width:100%;height:400px;border:0"


@pytest.mark.parametrize(
    "macro", ["href{javascript:alert(1)}{x}", "htmlData{a=b}{x}", "style{x}{y}", "def\\sqrt{x}", "bbox[x]y"]
)
def test_latex_with_other_powers_is_text(macro):
    """A formula that links, styles or defines is shown as its source."""
    shown = clean({"text/latex": f"$\\{macro}$"})
    assert shown.data == {"text/plain": f"$\\{macro}$"}
    assert shown.notes[0].startswith("text/latex was not shown: the macro \\")


def test_plain_latex_is_typeset():
    """A formula stays one, words that begin like refused macros included."""
    source = r"$\displaystyle \frac{x}{y} \textstyle \default \begin{matrix}1 & 2\\3\end{matrix} \left[1\right]$"
    assert clean({"text/latex": source}).data["text/latex"] == source
    assert "text/latex" not in clean({"text/latex": source}, mode="text").data


@pytest.mark.parametrize(
    ("mime", "why"),
    [
        ("application/javascript", "contained code may not run script in the page"),
        ("text/javascript", "contained code may not run script in the page"),
        ("application/vnd.jupyter.widget-view+json", "a widget would run script in the page and talk to it"),
        ("application/vnd.plotly.v1+json", "what draws it is script in the page"),
        ("application/geo+json", "it is not among the types that can be made safe"),
        ("application/pdf", "it is not among the types that can be made safe"),
        ("text/html; charset=utf-8", None),
        ("TEXT/HTML", None),
        ("image/svg", "it is not among the types that can be made safe"),
    ],
)
def test_other_types_are_dropped_with_a_note(mime, why):
    """Scripts, widgets, what scripts draw, and what nobody knows: named, or counted where the name is none."""
    shown = clean({mime: "alert(1)"})
    note = (
        f"{mime} was not shown: {why}"
        if why
        else "1 representations were not shown: their MIME types are none that are known"
    )
    assert (shown.data, shown.notes) == ({"text/plain": note}, (note,))


def test_note_tells_of_the_frame_where_it_would_help():
    """A plot with HTML beside it says how to see it, and with the frame there is nothing left to say."""
    plot = {"application/vnd.plotly.v1+json": {}, "text/html": "<div></div><script>1</script>", "text/plain": "Figure"}
    shown = clean(plot)
    assert shown.data == {"text/plain": "Figure"}
    assert all("--html iframe" in note for note in shown.notes)
    framed = clean(plot, mode="iframe")
    assert set(framed.data) == {"text/plain", "text/html"}
    assert framed.notes == ()


def test_json_is_bounded_and_has_no_nan():
    """JSON passes as JSON."""
    value = {"a": [1, 2.5, None, True, float("nan"), float("inf"), "x"], "b": {}}
    expected = {"a": [1, 2.5, None, True, None, None, "x"], "b": {}}
    assert clean({"application/json": value}).data == {"application/json": expected}


def nested(depth):
    """Return lists in lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        nested(100_000),
        [0] * json_data.JSON_VALUES,
        "x" * (json_data.JSON_BYTES + 1),
        {1: 2},
        {None: 1},
        1 << 20_000,
        {"a": {1}},
        b"x",
        object(),
    ],
    ids=["deep", "long", "large", "number as key", "null as key", "giant number", "set", "bytes", "object"],
)
def test_json_out_of_bounds_is_dropped(value):
    """Depth, number, size, keys and types are checked."""
    shown = clean({"application/json": value})
    assert set(shown.data) == {"text/plain"}
    assert shown.notes[0].startswith("application/json was not shown: ")


def test_json_is_refused_for_its_depth():
    """A few lists too deep are found by counting, long before Python's own limit."""
    assert "nested more than" in clean({"application/json": nested(json_data.JSON_DEPTH)}).notes[0]
    assert clean({"application/json": nested(json_data.JSON_DEPTH - 1)}).notes == ()


def test_metadata_keeps_sizes_only():
    """Of metadata the size and the background of a picture stay, with checked types."""
    kept = {"width": 10, "height": 20, "needs_background": "light"}
    hostile = {"isolated": True, "tags": ["x"], "jp-x": 1}
    shown = clean(
        {"image/png": picture(), "text/plain": "x"}, {"image/png": kept | hostile, "text/plain": hostile, 3: 4}
    )
    assert shown.metadata == {"image/png": kept}
    assert clean({"image/png": picture()}, kept | hostile).metadata == {"image/png": kept}


@pytest.mark.parametrize("value", ["10", True, float("nan"), float("inf"), 10**400, -1, 0, 10_001, None, [1], {}])
def test_metadata_of_other_types_is_dropped(value):
    """A size is a number between one and ten thousand, a background is a word."""
    assert clean({"image/png": picture()}, {"image/png": {"width": value, "needs_background": value}}).metadata == {}


def test_flood_of_types_is_counted():
    """A hundred thousand MIME types give a few notes."""
    shown = clean({f"application/x-{number}": "x" for number in range(100_000)} | {"text/plain": "x"})
    assert shown.data == {"text/plain": "x"}
    assert len(shown.notes) == NOTES + 1
    assert len("".join(shown.notes)) < 10_000


def test_traceback_is_bounded_and_safe():
    """Each entry keeps its colours only; of too many the first and the last are shown."""
    assert sanitize_traceback(["\x1b[31ma\0\x1b[2J\ud800"]) == ["\x1b[31ma\ufffd\x1b[0m"]
    lines = sanitize_traceback(str(number) for number in range(100_000))
    assert (lines[0], lines[500], lines[-1]) == ("0", "[... 99,000 entries not shown ...]", "99999")


TEXT = st.text(st.characters())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary() | st.just(picture()),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXT | st.integers(), below, max_size=4),
    max_leaves=8,
)
TYPES = st.sampled_from(
    [*words("""
        text/plain text/html image/svg+xml text/markdown text/latex image/png image/jpeg image/gif image/webp
        application/json application/javascript application/vnd.x+json nonsense
    """), "\ud800", "x/\x1b[2J"]
)  # fmt: skip
NAMES = TYPES | st.text(st.characters(), max_size=9) | st.integers() | st.none() | st.binary(max_size=3)
METADATA = st.dictionaries(
    NAMES | st.sampled_from(["width", "height", "needs_background"]),
    VALUES | st.dictionaries(st.sampled_from(["width", "height", "needs_background"]), VALUES, max_size=3),
    max_size=3,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=6), METADATA, st.sampled_from(MODES))
def test_any_bundle_gives_a_safe_one(data, metadata, mode):
    """Whatever comes, nothing is raised, and what is shown can be sent and is safe."""
    shown = clean(data, metadata, mode)
    assert shown.data
    assert set(shown.data) <= {"text/plain", "text/html", "text/latex", "image/png", "image/jpeg", "application/json"}
    json.dumps([shown.data, shown.metadata, shown.notes], allow_nan=False, ensure_ascii=False).encode()
    assert set(shown.metadata) <= {"image/png", "image/jpeg"}
    for mime in {"image/png", "image/jpeg"} & set(shown.data):
        assert_picture(f"data:{mime};base64,{shown.data[mime]}")
    for note in shown.notes:
        assert note.isprintable()
        assert len(note) < 300
    if "text/html" in shown.data:
        if "<iframe" in shown.data["text/html"]:
            assert mode == "iframe"
            frames(shown.data["text/html"])
        else:
            assert_inert(shown.data["text/html"])


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([("image/png", "PNG"), ("image/jpeg", "JPEG"), ("image/gif", "GIF")]),
    st.randoms(use_true_random=False),
)
def test_damaged_pictures_are_shown_or_noted(kind, chance):
    """Bytes changed anywhere in a picture never raise, and never pass as they came."""
    mime, name = kind
    data = bytearray(picture(name, size=(20, 20)))
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    shown = clean({mime: bytes(data)})
    assert "text/plain" in shown.data or decoded(next(iter(shown.data.values())))


def test_the_filter_loads_libraries_only_when_a_bundle_needs_them():
    """Importing the package, and text, cost no nh3, Pillow or Markdown."""
    source = (
        "import sys; from container_magic.sanitize.bundle import sanitize_bundle as s;"
        " s({'text/plain': 'x', 'application/json': 1}, {}, mode='safe');"
        " assert not {'nh3', 'PIL', 'markdown_it', 'mdit_py_plugins'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", source], check=True)


def test_frame_text_is_escaped_twice():
    """What stands in the inner frame is text of an attribute of text of an attribute."""
    html = clean({"text/html": "<b title='\"'>"}, mode="iframe").data["text/html"]
    assert standard_html.escape(standard_html.escape("<b title='\"'>")) in html
    assert "<b " not in html
