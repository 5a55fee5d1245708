"""Contained code tries every road into the page: none leads there, while the same outputs uncontained do get in."""

import pytest
from roads import FAMILIES, PREFIX, roads

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.slow]

CONTAINED = "%%contain --net none --mem 300M\n"
VICTIM = "from IPython.display import display\ndisplay({'text/plain': 'untouched'}, raw=True, display_id='victim')"
# what JupyterLab loads only when it is needed has been loaded and used when the outputs of this cell are seen
WITNESS = """
from IPython.display import display
display({'text/markdown': '<b>seen</b> $x$\\n```mermaid\\ngraph LR\\nA-->B\\n```', 'text/plain': ''}, raw=True)
display({'application/vnd.vega.v5+json': {'$schema': 'https://vega.github.io/schema/vega/v5.json', 'width': 9,
         'height': 9, 'marks': [{'type': 'rect'}],
         'usermeta': {'embedOptions': {'actions': False}}}, 'text/plain': ''}, raw=True)
"""
# images that fail, frames that are drawn and answers of the server: what was begun before is over after
SETTLE = """async () => {
  for (let round = 0; round < 5; round++) {
    await new Promise(done => { const image = new Image(); image.onerror = done; image.src = 'x:' });
    await fetch('/api/status');
    await new Promise(requestAnimationFrame);
  }
}"""
# a user's pointer goes over everything, and clicks on all but addresses that a user can see are foreign
PROVOKE = """() => {
  for (const node of document.querySelectorAll('.jp-OutputArea-output *')) {
    node.dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));
    const address = node.getAttribute('href') ?? node.getAttribute('xlink:href') ?? '';
    const clickable = node.matches('a, area, button, input, summary, label, [data-commandlinker-command], [href]');
    if (clickable && !/^(https?|mailto):/.test(address))
      node.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}));
  }
}"""
# what a frame holds of the roads: the names that script left, and whether an output poses as a part of the page
MARKS = """() => {
  const posing = '#__pwned, [name=__pwned], [id=jupyter-config-data], .jp-Dialog, [style*=fixed]';
  const poses = [...document.querySelectorAll('.jp-OutputArea-output')].some(node => node.querySelector(posing));
  return String(window.__pwned ?? '') + (poses ? '.poses' : '');
}"""
BITES = {
    "html-script",
    "html-script-source",
    "html-img-onerror",
    "html-frame-srcdoc",
    "html-style-attribute",
    "html-button-onclick",
    "html-img-of-server",
    "markdown-img-onerror",
    "markdown-image",
    "bundle-javascript",
    "bundle-vegalite",
    "class-HTML",
    "class-Javascript",
    "result-html",
    "result-javascript",
}
"""Roads that are known to lead into JupyterLab's page when nothing is contained."""


NOTEBOOKS = [("html",), ("svg", "markdown", "latex"), ("bundle", "class", "result"), ("text", "session")]
"""Families that share a notebook: to open one takes longer than to run its cells."""
LEAVES = {"location", "refresh", "download"}
"""Scripts of a frame that send the frame itself elsewhere: what comes is an empty one, and no request."""


def settle(page):
    """Wait until whatever the outputs have begun is over."""
    outputs = page.page.locator(".jp-OutputArea", has=page.page.get_by_text("seen", exact=True))
    outputs.locator(".jp-RenderedMarkdown").locator("svg, img").first.wait_for()
    outputs.locator(".vega-embed").locator("svg, canvas").first.wait_for()
    page.page.evaluate(SETTLE)


def opened(notebook, name, cells):
    """Return a page whose cells have run, with outputs that have been looked at, but not touched."""
    page = notebook(name, VICTIM, *cells, WITNESS, goes_on=True)
    page.page.evaluate("() => { window.__pwned = '' }")
    page.run()
    settle(page)
    return page


def marks(page):
    """Return the names of the roads that ran script in a frame of the page, and ``poses``."""
    found = ".".join(frame.evaluate(MARKS) for frame in page.page.frames)
    return {name for name in found.replace("undefined", "").split(".") if name}


def reported(page, number):
    """Return whether a cell's output holds the report of a container."""
    shown = [output.get("data", {}).get("text/plain", "") for output in page.outputs(number)]
    return any(" wall " in text and " of 300 MB" in text for text in map("".join, shown))


def asked(page, canary):
    """Return the names of the roads that made the page ask a server for something."""
    addresses = [*page.log.foreign(()), *canary.hits]
    return {address.partition(PREFIX)[2].split("/")[0].partition(".")[0] for address in addresses if PREFIX in address}


def assert_nothing_came(page, lab, canary, kernels):
    """Look at page, canary and server, then touch every output and look again."""
    sources, address = page.sources(), page.page.url
    # a notebook whose cells did not run in containers would pass all that follows
    assert [number for number in range(2, len(sources) - 1) if not reported(page, number)] == []
    for _ in range(2):
        assert (marks(page), asked(page, canary)) == (set(), set())
        assert canary.hits == page.log.foreign((lab.url, lab.url.replace("http", "ws"))) == []
        assert page.log.dialogs == page.log.opened == []
        assert "untouched" in page.shown(1)
        assert (page.sources(), page.page.url) == (sources, address)
        assert (len(lab.api("kernels")), lab.api("terminals")) == (kernels, [])
        page.page.evaluate(PROVOKE)
        settle(page)


@pytest.mark.parametrize("families", NOTEBOOKS, ids="-".join)
def test_no_output_of_a_contained_cell_reaches_the_page(notebook, lab, canary, families):
    """No script, dialog, request, new cell, changed output, opened page or kernel comes of any of them."""
    kernels = len(lab.api("kernels")) + 1
    cells = [CONTAINED + road.cell(canary.url) for family in families for road in roads(family)]
    page = opened(notebook, "-".join(families), cells)
    assert_nothing_came(page, lab, canary, kernels)


def test_script_in_a_frame_does_not_leave_it(notebook, lab, canary):
    """With ``--html iframe`` scripts run, and neither the page nor its storage nor any network is in their reach."""
    kernels = len(lab.api("kernels")) + 1
    cells = [CONTAINED.replace("\n", " --html iframe\n") + road.cell(canary.url) for road in roads("frame")]
    page = opened(notebook, "hostile-frame", cells)
    texts = [frame.locator("body").inner_text() for frame in page.page.frames if frame.parent_frame]
    assert set(FAMILIES["frame"]) - {text.partition("ran ")[2] for text in texts} <= LEAVES
    assert "road" not in page.page.evaluate("document.cookie + Object.keys(localStorage)")
    assert_nothing_came(page, lab, canary, kernels)


def test_the_same_outputs_uncontained_get_in(notebook, canary):
    """The roads that are known to lead into the page do: what is asserted above would be seen."""
    known = [road for family in FAMILIES for road in roads(family) if road.name in BITES]
    extra = [road for road in roads("html") if road.name in ("html-clobber", "html-command")]
    page = opened(notebook, "control", [road.cell(canary.url) for road in (*known, *extra)])
    sources = page.sources()
    page.page.evaluate(PROVOKE)
    settle(page)
    assert {*BITES, "poses"} - marks(page) - asked(page, canary) == set()
    assert len(page.sources()) > len(sources)
