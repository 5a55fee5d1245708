"""ipywidgets' own widgets: which models there are, with which view, and what kind of value each of their keys has.

From the list that ipywidgets 8 is released with (``packages/schema/jupyterwidgetmodels.latest.json``). Nothing else may
be opened: any other model is script that somebody has installed in the page, which nobody has looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from container_magic.deferred import dataclass

MODULES = {
    "base": "@jupyter-widgets/base",
    "controls": "@jupyter-widgets/controls",
    "output": "@jupyter-widgets/output",
}
VERSION = {MODULES["base"]: "2.0.0", MODULES["controls"]: "2.0.0", MODULES["output"]: "1.0.0"}
"""Of the same major version; of version 1 of the controls a page shows every description as HTML."""
_VERSION = re.compile(r"\d{1,3}\.\d{1,3}\.\d{1,3}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Model:
    """One kind of model; ``keys`` maps the names in its state to kinds of values."""

    name: str
    module: str
    view: str | None
    keys: dict[str, str]

    @property
    def view_module(self) -> str:
        """The module of the view; styles of the controls share one of the base."""
        return MODULES["base"] if self.view == "StyleView" else self.module


_GROUPS = {
    "+dom": "_dom_classes layout tabbable tooltip",
    "+described": "description description_allow_html style",
}
_KINDS = {
    "classes": "_dom_classes",
    "colour": "bar_color button_color handle_color text_color",
    "background": "background",
    "css": ("button_width description_width font_family font_size font_style font_variant font_weight text_decoration"),
    "d3": "readout_format",
    "end": "source target",
    "flag": (
        "allow_duplicates autoplay concise connected continuous_update controls disabled ensure_option indent loop"
        " multiple playing pressed readout repeat show_repeat tabbable"
    ),
    "icon": "icon",
    "icons": "icons",
    "length": (
        "align_content align_items align_self border_bottom border_left border_right border_top bottom display flex"
        " flex_flow grid_area grid_auto_columns grid_auto_flow grid_auto_rows grid_column grid_gap grid_row"
        " grid_template_areas grid_template_columns grid_template_rows justify_content justify_items left margin"
        " max_height max_width min_height min_width object_fit object_position order overflow padding right top"
        " visibility"
    ),
    "media": "format",
    "model": "layout style",
    "models": "axes buttons children",
    "name": "msg_id",
    "never": "description_allow_html",
    "number": "base index interval max min rows selected_index step timestamp value",
    "numbers": "allowed_tags",
    "outputs": "outputs",
    "pixels": "height width",
    "text": "accept error mapping name placeholder tooltip",
    "texts": "_options_labels options titles tooltips",
    "typeset": "description",
    "word": "bar_style behavior box_style button_style orientation tag_style",
}
_USUAL_KIND = {key: kind for kind, keys in _KINDS.items() for key in keys.split()}

# name, module, view, keys: a key whose kind is another than usual names it; an indented line goes on with the last
_TABLE = """
Layout base Layout align_content align_items align_self border_bottom border_left border_right border_top bottom
    display flex flex_flow grid_area grid_auto_columns grid_auto_flow grid_auto_rows grid_column grid_gap grid_row
    grid_template_areas grid_template_columns grid_template_rows height:length justify_content justify_items left
    margin max_height max_width min_height min_width object_fit object_position order overflow padding right top
    visibility width:length
Accordion controls Accordion +dom box_style children selected_index titles
Audio controls Audio +dom autoplay controls format loop value:media
BoundedFloatText controls FloatText +dom +described continuous_update disabled max min step value
BoundedIntText controls IntText +dom +described continuous_update disabled max min step value
Box controls Box +dom box_style children
Button controls Button +dom button_style description disabled icon style
ButtonStyle controls Style button_color font_family font_size font_style font_variant font_weight text_color
    text_decoration
Checkbox controls Checkbox +dom +described disabled indent value:flag
CheckboxStyle controls Style background description_width
ColorPicker controls ColorPicker +dom +described concise disabled value:colour
ColorsInput controls ColorsInput +dom +described allow_duplicates allowed_tags:colours placeholder value:colours
Combobox controls Combobox +dom +described continuous_update disabled ensure_option options placeholder value:text
ControllerAxis controls ControllerAxis +dom value
ControllerButton controls ControllerButton +dom pressed value
Controller controls Controller +dom axes buttons connected index mapping name timestamp
DatePicker controls DatePicker +dom +described disabled max:date min:date step:step value:date
Datetime controls Datetime +dom +described disabled max:date min:date value:date
DescriptionStyle controls Style description_width
DirectionalLink controls - source target
Dropdown controls Dropdown +dom +described _options_labels disabled index
FileUpload controls FileUpload +dom +described accept button_style disabled error icon multiple value:files
FloatLogSlider controls FloatLogSlider +dom +described base behavior continuous_update disabled max min orientation
    readout readout_format step value
FloatProgress controls Progress +dom +described bar_style max min orientation value
FloatRangeSlider controls FloatRangeSlider +dom +described behavior continuous_update disabled max min orientation
    readout readout_format step value:numbers
FloatSlider controls FloatSlider +dom +described behavior continuous_update disabled max min orientation readout
    readout_format step value
FloatText controls FloatText +dom +described continuous_update disabled step value
FloatsInput controls FloatsInput +dom +described allow_duplicates allowed_tags format:d3 max min placeholder
    tag_style value:numbers
GridBox controls GridBox +dom box_style children
HBox controls HBox +dom box_style children
HTMLMath controls HTMLMath +dom +described placeholder value:html
HTMLMathStyle controls Style background description_width font_size text_color
HTML controls HTML +dom +described placeholder value:html
HTMLStyle controls Style background description_width font_size text_color
Image controls Image +dom format:picture height value:picture width
IntProgress controls Progress +dom +described bar_style max min orientation value
IntRangeSlider controls IntRangeSlider +dom +described behavior continuous_update disabled max min orientation
    readout readout_format step value:numbers
IntSlider controls IntSlider +dom +described behavior continuous_update disabled max min orientation readout
    readout_format step value
IntText controls IntText +dom +described continuous_update disabled step value
IntsInput controls IntsInput +dom +described allow_duplicates allowed_tags format:d3 max min placeholder tag_style
    value:numbers
Label controls Label +dom +described placeholder value:typeset
LabelStyle controls Style background description_width font_family font_size font_style font_variant font_weight
    text_color text_decoration
Link controls - source target
NaiveDatetime controls Datetime +dom +described disabled max:date min:date value:date
Password controls Password +dom +described continuous_update disabled placeholder value:text
Play controls Play +dom +described disabled interval max min playing repeat show_repeat step value
ProgressStyle controls Style bar_color description_width
RadioButtons controls RadioButtons +dom +described _options_labels disabled index orientation
Select controls Select +dom +described _options_labels disabled index rows
SelectMultiple controls SelectMultiple +dom +described _options_labels disabled index:indices rows
SelectionRangeSlider controls SelectionRangeSlider +dom +described _options_labels behavior continuous_update
    disabled index:indices orientation readout
SelectionSlider controls SelectionSlider +dom +described _options_labels behavior continuous_update disabled index
    orientation readout
SliderStyle controls Style description_width handle_color
Stack controls Stack +dom box_style children selected_index titles
Tab controls Tab +dom box_style children selected_index titles
TagsInput controls TagsInput +dom +described allow_duplicates allowed_tags:texts placeholder tag_style value:texts
Text controls Text +dom +described continuous_update disabled placeholder value:text
TextStyle controls Style background description_width font_size text_color
Textarea controls Textarea +dom +described continuous_update disabled placeholder rows value:text
Time controls Time +dom +described disabled max:date min:date step:step value:date
ToggleButton controls ToggleButton +dom +described button_style disabled icon value:flag
ToggleButtonStyle controls Style description_width font_family font_size font_style font_variant font_weight
    text_color text_decoration
ToggleButtons controls ToggleButtons +dom +described _options_labels button_style disabled icons index tooltips
ToggleButtonsStyle controls Style button_width description_width font_weight
VBox controls VBox +dom box_style children
Valid controls Valid +dom +described disabled readout:text value:flag
Video controls Video +dom autoplay controls format height loop value:media width
Output output Output +dom msg_id outputs
"""


def _models() -> dict[str, Model]:
    found = {}
    for line in _TABLE.replace("\n    ", " ").strip().splitlines():
        name, module, view, *words = line.split()
        keys: dict[str, str] = {}
        for entry in " ".join(_GROUPS.get(word, word) for word in words).split():
            key, _, kind = entry.partition(":")
            keys[key] = kind or _USUAL_KIND[key]
        found[f"{name}Model"] = Model(
            name=f"{name}Model", module=MODULES[module], view=None if view == "-" else f"{view}View", keys=keys
        )
    return found


MODELS = _models()


def model_of(state: Mapping[str, Any]) -> Model | None:
    """Return the model that a state says it is of, None when it is none of these."""
    name = state.get("_model_name")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None or state.get("_model_module") != model.module:
        return None
    return model if _is_version(model, state.get("_model_module_version")) else None


def _is_version(model: Model, value: Any) -> bool:
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        return False
    return value.partition(".")[0] == VERSION[model.module].partition(".")[0]


MODULE_KEYS: dict[str, Callable[[Model, Any], bool]] = {
    "_model_module": lambda model, value: value == model.module,
    "_model_module_version": _is_version,
    "_model_name": lambda model, value: value == model.name,
    "_view_count": lambda _, value: value is None or (type(value) is int and 0 <= value < 1 << 31),
    "_view_module": lambda model, value: value == model.view_module,
    "_view_module_version": _is_version,
    "_view_name": lambda model, value: value is None or value == model.view,
}
"""The keys by which a state says what it is; a view of another model would show it in another way."""
