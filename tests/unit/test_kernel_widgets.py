"""Widgets in the relay's filter: those of ipywidgets come through as they are, what would run script does not."""

import datetime
import io
import json

import comm
import comm.base_comm
import ipywidgets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ipywidgets.widgets.widget import _registry
from PIL import Image

from container_magic.kernel.filter import Filter
from container_magic.kernel.message import Message
from container_magic.kernel.widget_models import MODELS

VIEW = "application/vnd.jupyter.widget-view+json"
CONTROLS, BASE = "@jupyter-widgets/controls", "@jupyter-widgets/base"
SCRIPT = "<img src=x: onerror=alert(1)><b>text</b>"


def message(kind, content, buffers=(), metadata=None, parent="cell"):
    """Return a message as the relay hands it on."""
    return Message(
        msg_type=kind,
        msg_id="id",
        date="2026-01-01T00:00:00Z",
        parent_id=parent,
        metadata=metadata or {},
        content=content,
        buffers=tuple(buffers),
    )


class Recorder(comm.base_comm.BaseComm):
    """A comm that keeps what it would send, as it would come over the wire."""

    sent = []

    def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
        """Record a message."""
        assert keys.pop("target_module", None) is None
        content = {"comm_id": self.comm_id, "data": data or {}, **keys}
        wire = json.loads(json.dumps(content, default=str))
        Recorder.sent.append(message(msg_type, wire, [bytes(one) for one in buffers or ()], metadata))


@pytest.fixture
def sent(monkeypatch):
    """Return the messages that widgets send while the test runs."""
    monkeypatch.setattr(comm, "create_comm", Recorder)
    monkeypatch.setattr(Recorder, "sent", [])
    yield Recorder.sent
    ipywidgets.Widget.close_all()


def shown(filter_, messages):
    """Return what comes through, without notes, and the notes."""
    passed = [out for one in messages for out in filter_.clean("iopub", one)]
    notes = [one.content["text"] for one in passed if one.msg_type == "stream"]
    return [one for one in passed if one.msg_type != "stream"], notes


def widget_classes():
    """Return the classes of ipywidgets that a page has a model for, by the name of the model."""
    found = {}
    for module, versions in _registry._registry.items():
        for names in versions.values():
            for name, views in names.items():
                for view_modules in views.values():
                    for view_versions in view_modules.values():
                        for cls in view_versions.values():
                            if module.startswith("@jupyter-widgets/"):
                                found[name] = cls
    del found["DOMWidgetModel"]  # what the others derive from
    return found


def picture(kind="PNG"):
    """Return the bytes of a picture."""
    made = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(made, kind)
    return made.getvalue()


DAY = datetime.date(2026, 1, 2)
NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC)
ARGUMENTS = {
    "SelectionSliderModel": {"options": ["a", "b"]},
    "SelectionRangeSliderModel": {"options": ["a", "b"]},
    "LinkModel": None,
    "DirectionalLinkModel": None,
    "ValidModel": {"value": True, "description": "ok"},
    "ButtonModel": {"description": "Go", "icon": "check", "tooltip": "press", "button_style": "info"},
    "HTMLModel": {"value": "<b>bold</b> and <i>it</i>"},
    "LabelModel": {"value": r"$\frac{a}{b}$"},
    "DatePickerModel": {"value": DAY, "min": DAY},
    "DatetimeModel": {"value": NOON},
    "TimeModel": {"value": datetime.time(1, 2)},
    "ToggleButtonsModel": {"options": ["x", "y"], "icons": ["check", "times"], "tooltips": ["1", "2"]},
    "ColorPickerModel": {"value": "#12ab34"},
    "TagsInputModel": {"value": ["a"], "allowed_tags": ["a", "b"], "tag_style": "info"},
    "ColorsInputModel": {"value": ["red"]},
    "LayoutModel": {"width": "calc(100% - 10px)", "border": "1px solid var(--jp-border-color1)", "margin": "0 1em"},
    "ComboboxModel": {"options": ["a", "b"], "value": "a"},
    "GridBoxModel": {"layout": {"grid_template_areas": '"a b"\n"c d"', "grid_template_columns": "repeat(2, 1fr)"}},
}


@pytest.mark.parametrize("name", sorted(widget_classes()))
def test_every_widget_of_ipywidgets_opens_as_it_is(name, sent):
    """comm_open and updates of each class come through with the same state, without a note."""
    cls = widget_classes()[name]
    arguments = ARGUMENTS.get(name, {})
    if arguments is None:
        slider, text = ipywidgets.IntSlider(), ipywidgets.IntText()
        cls(source=(slider, "value"), target=(text, "value"))
    elif "children" in cls.class_traits():
        cls(children=[ipywidgets.Label("a"), ipywidgets.Button()], **arguments)
    else:
        cls(**arguments)
    passed, notes = shown(Filter("safe", True), sent)
    assert notes == []
    assert [one.content for one in passed] == [one.content for one in sent]
    assert [one.buffers for one in passed] == [one.buffers for one in sent]
    assert any(one.content["data"]["state"]["_model_name"] == name for one in passed)


def test_the_list_of_models_is_that_of_the_installed_ipywidgets():
    """Every model of ipywidgets is known, with its view and all of its keys."""
    for name, cls in widget_classes().items():
        model = MODELS[name]
        keys = set(cls.class_traits(sync=True))
        own = {"_model_module", "_model_module_version", "_model_name", "_view_count"}
        own |= {"_view_module", "_view_module_version", "_view_name"}
        assert keys - own == set(model.keys), name
        assert cls.class_traits()["_view_name"].default_value in (model.view, None), name


def test_updates_pass(sent):
    """A change of a value is an update of the comm that was opened."""
    slider = ipywidgets.IntSlider(description="n")
    slider.value = 7
    slider.close()
    passed, notes = shown(Filter("safe", True), sent)
    assert notes == []
    assert [one.msg_type for one in passed] == [one.msg_type for one in sent]
    assert passed[-2].content["data"] == {"method": "update", "state": {"value": 7}, "buffer_paths": []}


def test_a_widget_that_is_open_is_shown_and_another_is_text(sent):
    """The view of a display passes for a known comm only."""
    slider = ipywidgets.IntSlider()
    checked = Filter("safe", True)
    shown(checked, sent)
    for model_id, is_shown in ((slider.model_id, True), ("0" * 32, False), (slider.layout.model_id, True)):
        view = {"model_id": model_id, "version_major": 2, "version_minor": 0}
        display = message("display_data", {"data": {"text/plain": "IntSlider()", VIEW: view}, "metadata": {}})
        (out, *notes) = checked.clean("iopub", display)
        assert out.content["data"] == {"text/plain": "IntSlider()"} | ({VIEW: view} if is_shown else {})
        assert bool(notes) != is_shown


def test_widgets_are_off_by_default(sent):
    """Nothing of a comm passes, the view is text, and one note of the cell says how to allow them."""
    slider = ipywidgets.IntSlider()
    view = {"model_id": slider.model_id, "version_major": 2, "version_minor": 0}
    display = message("display_data", {"data": {"text/plain": "IntSlider()", VIEW: view}})
    passed, notes = shown(Filter("safe", False), [*sent, display])
    assert [one.content["data"] for one in passed] == [{"text/plain": "IntSlider()"}]
    assert notes == ["widgets are off: contain kernel install --allow-widgets\n"]


def opened(model, /, module=CONTROLS, comm_id="one", view=None, version="2.0.0", target_name="jupyter.widget", **state):
    """Return a comm_open of a model."""
    own = {"_model_name": model, "_model_module": module, "_model_module_version": version}
    if view:
        own["_view_name"] = view
    return message(
        "comm_open",
        {"comm_id": comm_id, "target_name": target_name, "data": {"state": own | state, "buffer_paths": []}},
        metadata={"version": "2.1.0"},
    )


def updated(comm_id="one", method="update", **state):
    """Return an update of a model."""
    return message("comm_msg", {"comm_id": comm_id, "data": {"method": method, "state": state, "buffer_paths": []}})


@pytest.mark.parametrize(
    "hostile",
    [
        opened("AnyModel", "anywidget", version="0.9.0", _esm="export default {}", _css="body{}"),
        opened("HTMLModel", "@jupyter-widgets/controls/../evil"),
        opened("HTMLModel", version="1.5.0"),
        opened("HTMLModel", version="<img src=x onerror=alert(1)>"),
        opened("EvilModel"),
        opened("HTMLModel", target_name="hub.command"),
        opened("HTMLModel", comm_id="<b>"),
        opened(["HTMLModel"]),
        message("comm_open", {"comm_id": "x", "target_name": "jupyter.widget", "target_module": "evil", "data": []}),
    ],
)
def test_what_is_no_widget_of_ipywidgets_is_not_opened(hostile):
    """Foreign classes, modules, versions and targets are dropped."""
    passed, _ = shown(Filter("safe", True), [hostile, updated(hostile.content["comm_id"], value="x")])
    assert passed == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("TextModel", "_view_name", "HTMLView"),
        ("TextModel", "_view_module", "evil"),
        ("TextModel", "_esm", "export default {}"),
        ("TextModel", "value", {"toString": "x"}),
        ("LayoutModel", "width", "url(http://evil/)"),
        ("LayoutModel", "margin", "calc(0px - 900px)"),
        ("LayoutModel", "margin", "-900px 0 0 0"),
        ("LayoutModel", "display", "fixed; background: url(x)"),
        ("LayoutModel", "grid_template_areas", "'a' } body { background: url(x)"),
        ("LayoutModel", "height", "99999px"),
        ("LabelStyleModel", "background", "url(http://evil/)"),
        ("LabelStyleModel", "background", "image-set('http://evil/' 1x)"),
        ("ButtonStyleModel", "button_color", "red; background: url(x)"),
        ("ButtonModel", "icon", "x'><img src=x>"),
        ("ButtonModel", "button_style", "jp-Dialog"),
        ("ButtonModel", "style", "IPY_MODEL_<img src=x onerror=alert(1)>"),
        ("VBoxModel", "children", ["IPY_MODEL_x", "<img src=x>"]),
        ("IntSliderModel", "readout_format", "999999999d"),
        ("IntSliderModel", "readout_format", "<script>"),
        ("ImageModel", "format", "url"),
        ("ImageModel", "format", "svg+xml"),
        ("VideoModel", "format", "url"),
        ("AudioModel", "value", "http://evil/"),
        ("OutputModel", "msg_id", "<img>"),
    ],
)
def test_hostile_values_are_not_passed_on(name, key, value):
    """Neither with the opening nor with an update."""
    module = {"LayoutModel": BASE, "OutputModel": "@jupyter-widgets/output"}.get(name, CONTROLS)
    version = "1.0.0" if name == "OutputModel" else "2.0.0"
    checked = Filter("safe", True)
    (first, *_) = checked.clean("iopub", opened(name, module, version=version, **{key: value}))
    state = first.content["data"]["state"]
    assert not state.get(key)
    passed, _ = shown(checked, [updated(**{key: value})])
    assert all(key not in one.content["data"]["state"] for one in passed)


@pytest.mark.parametrize("name", ["HTMLModel", "HTMLMathModel"])
@pytest.mark.parametrize("mode", ["text", "safe", "iframe"])
def test_html_in_widgets_is_cleaned(name, mode):
    """No script comes through in a value or a description."""
    checked = Filter(mode, True)
    (first, *_) = checked.clean("iopub", opened(name, value=SCRIPT, description="<b>d", description_allow_html=True))
    state = first.content["data"]["state"]
    assert state["value"] == ("text" if mode == "text" else "<img><b>text</b>")
    assert (state["description"], state["description_allow_html"]) == ("<b>d", False)
    (second, *_) = checked.clean("iopub", updated(value=SCRIPT, description_allow_html=True))
    assert "onerror" not in str(second.content)
    assert second.content["data"]["state"]["description_allow_html"] is False


def test_formulas_in_labels_are_defused():
    """A page looks for formulas in labels and descriptions: a macro that links is none there."""
    hostile = r"$\href{javascript:alert(1)}{x}$"
    (first, *_) = Filter("safe", True).clean("iopub", opened("LabelModel", value=hostile, description=hostile))
    state = first.content["data"]["state"]
    assert r"\href" not in state["value"] + state["description"]


def test_classes_that_the_page_gives_a_meaning_are_taken_off():
    """Those of ipywidgets stay."""
    given = ["widget-interact", "jp-Dialog", "lm-Menu", "dataframe"]
    (first, *_) = Filter("safe", True).clean("iopub", opened("BoxModel", _dom_classes=given))
    assert first.content["data"]["state"]["_dom_classes"] == ["widget-interact", "dataframe"]


def end(comm_id, key):
    """Return an end of a link."""
    return [f"IPY_MODEL_{comm_id}", key]


@pytest.mark.parametrize("kind", ["LinkModel", "DirectionalLinkModel"])
@pytest.mark.parametrize(
    ("source", "target", "passes"),
    [
        (end("slider", "value"), end("other", "value"), True),
        (end("text", "value"), end("html", "value"), False),
        (end("text", "value"), end("label", "value"), False),
        (end("text", "value"), end("text", "_dom_classes"), False),
        (end("text", "value"), end("html", "_view_name"), False),
        (end("text", "value"), end("html", "description"), False),
        (end("text", "value"), end("html", "description_allow_html"), False),
        (end("check", "value"), end("html", "description_allow_html"), False),
        (end("text", "value"), end("nobody", "value"), False),
    ],
)
def test_links_do_not_lead_past_the_filter(kind, source, target, passes):
    """The page copies values itself: never plain text to where it is rendered, also when the ends come one by one."""
    checked = Filter("safe", True)
    models = {"slider": "IntSliderModel", "other": "IntTextModel", "text": "TextModel", "html": "HTMLModel"}
    models |= {"label": "LabelModel", "check": "CheckboxModel"}
    shown(checked, [opened(model, comm_id=comm_id) for comm_id, model in models.items()])
    (link, *_) = checked.clean("iopub", opened(kind, comm_id="link", source=source, target=target))
    state = link.content["data"]["state"]
    assert ("source" in state, "target" in state) == (passes, passes)
    for part in ({"source": source}, {"target": target}):
        passed, _ = shown(checked, [updated("link", **part)])
        assert all(not one.content["data"]["state"] for one in passed)


def with_value(comm_message, data, path=("value",)):
    """Return the message with a binary value."""
    content = json.loads(json.dumps(comm_message.content))
    content["data"]["buffer_paths"] = [list(path)]
    return message(comm_message.msg_type, content, [data], comm_message.metadata)


def test_pictures_are_encoded_anew():
    """What follows the picture in its bytes is gone; what is no picture is empty, with a note."""
    checked = Filter("safe", True)
    passed, notes = shown(checked, [with_value(opened("ImageModel", format="png"), picture() + b"<script>")])
    (one,) = passed
    assert notes == []
    assert one.content["data"]["buffer_paths"] == [["value"]]
    assert one.content["data"]["state"]["format"] == "png"
    assert b"<script>" not in one.buffers[0]
    assert Image.open(io.BytesIO(one.buffers[0])).size == (3, 2)
    passed, notes = shown(checked, [with_value(updated(), b"<svg onload=alert(1)>")])
    assert passed[0].buffers == (b"",)
    assert len(notes) == 1


def test_a_binary_value_goes_nowhere_else():
    """Buffers for keys that have no binary value, or for places that do not exist, are dropped."""
    for path in (("_view_name",), ("value", "toString"), ("__proto__", "x"), ("children", 0)):
        (one, *_) = Filter("safe", True).clean("iopub", with_value(opened("TextModel"), b"x", path))
        assert one.buffers == ()
        assert one.content["data"]["buffer_paths"] == []


@pytest.mark.parametrize("name", ["AudioModel", "VideoModel"])
def test_sound_and_film_are_not_shown(name):
    """Their bytes would meet the page's decoders as they came."""
    passed, notes = shown(Filter("safe", True), [with_value(opened(name, format="mp4"), b"data")])
    assert passed[0].buffers == (b"",)
    assert len(notes) == 1


def test_outputs_of_an_output_widget_are_cleaned():
    """They are outputs as those of a cell."""
    outputs = [
        {"output_type": "display_data", "data": {"text/html": SCRIPT, "application/javascript": "1"}, "metadata": {}},
        {"output_type": "stream", "name": "stdout", "text": "a\x1b[2Jb"},
        {"output_type": "evil"},
    ]
    hostile = opened("OutputModel", "@jupyter-widgets/output", version="1.0.0", outputs=outputs)
    (one, *_) = Filter("safe", True).clean("iopub", hostile)
    assert one.content["data"]["state"]["outputs"] == [
        {"output_type": "display_data", "data": {"text/html": "<img><b>text</b>"}, "metadata": {}},
        {"output_type": "stream", "name": "stdout", "text": "ab"},
    ]


def client_opens(filter_, comm_id, target):
    """Have the filter see that a client opens a comm; and what else a client may send."""
    for content in (b"[]", b"{", b"[" * 9999, json.dumps({"comm_id": comm_id, "target_name": target}).encode()):
        filter_.seen_from_client("comm_open", content)
    filter_.seen_from_client("execute_request", b"{")


def test_ids_are_never_used_again():
    """Neither an open comm, nor a closed one, nor one of a client can be opened by the inside."""
    checked = Filter("safe", True)
    client_opens(checked, "client", "lsp")
    assert len(shown(checked, [opened("TextModel")])[0]) == 1
    assert shown(checked, [opened("HTMLModel"), opened("HTMLModel", comm_id="client")])[0] == []
    close = message("comm_close", {"comm_id": "one", "data": {}})
    assert len(shown(checked, [close])[0]) == 1
    assert shown(checked, [close, opened("HTMLModel"), updated(value="x")])[0] == []
    assert shown(checked, [updated("client", value="x"), updated("nobody", value="x")])[0] == []


def test_focus_cannot_be_moved_from_inside():
    """What the user types must not go elsewhere; blur and nothing else passes as a custom message."""
    checked = Filter("safe", True)
    shown(checked, [opened("TextModel")])
    for content, passes in (
        ({"do": "blur"}, True),
        ({"do": "focus"}, False),
        ("x", False),
        ({"event": "click"}, False),
    ):
        custom = message("comm_msg", {"comm_id": "one", "data": {"method": "custom", "content": content}})
        assert bool(shown(checked, [custom])[0]) == passes


def test_a_page_that_was_loaded_anew_gets_all_states(sent):
    """The answer on the client's own comm has known widgets only, with pictures where they belong."""
    image = ipywidgets.Image(value=picture(), format="png")
    checked = Filter("safe", True)
    shown(checked, sent)
    client_opens(checked, "control", "jupyter.widget.control")
    state = image.get_state()
    value = state.pop("value")
    own = {"model_name": "ImageModel", "model_module": CONTROLS, "model_module_version": "2.0.0", "state": state}
    data = {
        "method": "update_states",
        "states": {image.model_id: own, "evil": own | {"model_module": "anywidget"}},
        "buffer_paths": [[image.model_id, "state", "value"]],
    }
    answer = message("comm_msg", {"comm_id": "control", "data": json.loads(json.dumps(data))}, [bytes(value)])
    ((one,), notes) = shown(checked, [answer])
    assert notes == []
    assert one.content["data"]["states"] == {image.model_id: json.loads(json.dumps(own))}
    assert one.content["data"]["buffer_paths"] == [[image.model_id, "state", "value"]]
    assert Image.open(io.BytesIO(one.buffers[0])).size == (3, 2)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.sampled_from([SCRIPT]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(st.characters()), below, max_size=3),
    max_leaves=6,
)
STATES = st.sampled_from(sorted(MODELS)).flatmap(
    lambda name: st.tuples(st.just(name), st.dictionaries(st.sampled_from(sorted(MODELS[name].keys)), JSON, max_size=5))
)


@settings(max_examples=300, deadline=None)
@given(STATES, JSON, JSON)
def test_any_state_gives_keys_of_the_model_only(named, paths, extra):
    """Nothing is raised, and nothing but known keys comes through, without script."""
    name, state = named
    model = MODELS[name]
    checked = Filter("safe", True)
    version = "1.0.0" if name == "OutputModel" else "2.0.0"
    hostile = opened(name, model.module, version=version)
    hostile.content["data"]["state"] |= state  # not by keyword: a model's key may have the name of a parameter
    hostile.content["data"]["buffer_paths"] = paths
    hostile.content["extra"] = extra
    update = updated()
    update.content["data"]["state"] = state
    passed, _ = shown(checked, [hostile, update])
    for one in passed:
        assert set(one.content) <= {"comm_id", "target_name", "data"}
        assert set(one.content["data"]) <= {"state", "buffer_paths", "method"}
        kept = one.content["data"]["state"]
        assert set(kept) <= set(model.keys) | {"_model_name", "_model_module", "_model_module_version"}
        if "HTML" in name:
            assert "<img src=x:" not in str(kept.get("value"))
