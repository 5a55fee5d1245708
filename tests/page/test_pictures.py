"""How reports look in JupyterLab: pictures for people in ``build/page``, and what can be said of them without eyes."""

import pytest
from conftest import PICTURES

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.slow]

LIMITS = "--mem 300M --cpus 0-1 --net none"
FULL = """
chunks = []
for step in range(10):
    chunks.append(bytearray(18_000_000))
    sum(range(1_500_000))
print(len(chunks), "chunks")"""
CELLS = {
    "line": f"%%contain {LIMITS}\nprint(sum(range(10**6)))",
    "full": f"%%contain {LIMITS} --report full{FULL}",
    "memory": "%%contain --mem 200M --no-raise-error\nx = bytearray(500_000_000)",
    "time": "%%contain --timeout 500ms --no-raise-error\nwhile True: pass",
    "error": f"%%contain {LIMITS} --no-raise-error\ndef mean(values):\n    return sum(values) / len(values)\nmean([])",
}


# contrast as the Web Content Accessibility Guidelines define it, of every text of a report with what is behind it
CONTRASTS = """output => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = colour => colour.slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, place) => sum + part * [0.2126, 0.7152, 0.0722][place], 0);
  const ancestors = node => node ? [node, ...ancestors(node.parentElement)] : [];
  const behind = node => ancestors(node).map(each => parse(getComputedStyle(each).backgroundColor))
    .find(colour => colour[3] !== 0) ?? [255, 255, 255];
  const found = {};
  for (const node of output.querySelectorAll('div, b, th, td')) {
    const own = [...node.childNodes].filter(child => child.nodeType === 3 && child.data.trim());
    if (!own.length) continue;
    const opacity = ancestors(node).reduce((product, each) => product * getComputedStyle(each).opacity, 1);
    const back = behind(node), text = parse(getComputedStyle(node).color);
    const mixed = text.slice(0, 3).map((part, place) => part * opacity + back[place] * (1 - opacity));
    const [low, high] = [luminance(mixed), luminance(back)].sort((one, other) => one - other);
    found[own[0].data.trim()] = (high + 0.05) / (low + 0.05);
  }
  return found;
}"""
LEFT = """node => {
  const text = document.createTreeWalker(node, NodeFilter.SHOW_TEXT).nextNode();
  const range = document.createRange();
  range.selectNodeContents(text);
  return range.getBoundingClientRect().left;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_reports_can_be_read(notebook, theme):
    """On either theme every text of a report stands out, begins where the output does, and fits the page."""
    page = notebook(f"pictures-{theme}", *CELLS.values(), theme=theme)
    page.run()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(CELLS, start=1):
        page.cell(number).screenshot(path=PICTURES / f"{name}-{theme}.png")
        report = page.cell(number).locator("[data-mime-type='text/html']")
        contrasts = report.evaluate(CONTRASTS)
        assert contrasts
        assert not {text: contrast for text, contrast in contrasts.items() if contrast < 3}
        assert report.evaluate("node => node.scrollWidth - node.clientWidth") <= 0
    printed = page.cell(1).locator("[data-mime-type='application/vnd.jupyter.stdout'] pre")
    assert printed.evaluate(LEFT) == page.cell(1).locator("[data-mime-type='text/html'] b").evaluate(LEFT)
