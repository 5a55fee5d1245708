"""What a page would make of a filtered bundle, read by a parser and not by looking for strings."""

import base64
import binascii
import re
from html.parser import HTMLParser


def words(text):
    """Return the words of ``text``."""
    return set(text.split())


# no element with a life of its own, no foreign namespace, nothing whose content is not markup
INERT = words(
    "a abbr address article aside b bdi blockquote br caption center cite code col colgroup dd del details dfn div dl"
    " dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark ol p pre q s samp"
    " section small span strike strong sub summary sup table tbody td tfoot th thead tr tt u ul var"
)
HARMLESS = words(
    "align alt border class color colspan dir height href open rel rowspan scope span src start style target title type"
    " valign width"
)
STYLE = re.compile(r"[a-z-]+: [\w\s#%.,()+-]+(; [a-z-]+: [\w\s#%.,()+-]+)*")
FUNCTIONS = {"rgb", "rgba", "hsl", "hsla", "linear-gradient"}


class Page(HTMLParser):
    """The elements of a page as (tag, attributes), and its text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.elements, self.texts, self.other = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        """Note an element."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        """Note text."""
        self.texts.append(data)

    def handle_comment(self, data):
        """Note what is neither."""
        self.other.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment

    @property
    def text(self):
        """The text of the page."""
        return "".join(self.texts)

    def find(self, tag):
        """Return the attributes of every ``tag``."""
        return [attributes for name, attributes in self.elements if name == tag]


def assert_inert(html):
    """Assert that HTML runs nothing, requests nothing, and says only words of the allow-list."""
    page = Page(html)
    assert not page.other
    for tag, attributes in page.elements:
        assert tag in INERT, tag
        assert set(attributes) <= HARMLESS, (tag, attributes)
        assert not [name for name in attributes if name.startswith("on")]
        if "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"], re.IGNORECASE), attributes
            assert attributes["rel"] == "noopener noreferrer"
            assert attributes["target"] == "_blank"
        if "src" in attributes:
            assert tag == "img"
            assert_picture(attributes["src"])
        if "style" in attributes:
            style = attributes["style"]
            assert STYLE.fullmatch(style), style
            assert set(re.findall(r"([\w-]*)\s*\(", style)) <= FUNCTIONS, style
    return page


def assert_picture(source):
    """Assert that an image's source lies in itself: a raster picture, or SVG, which runs nothing in an image."""
    found = re.fullmatch(r"data:(image/(?:png|jpeg|svg\+xml));base64,([A-Za-z0-9+/=]+)", source)
    assert found, source[:80]
    data = binascii.a2b_base64(found[2], strict_mode=True)
    begins = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff"}.get(found[1], b"")
    assert data.startswith(begins)


def encoded(data):
    """Return bytes as base64 text."""
    return base64.b64encode(data).decode()
