"""The Swift package, held against Python without a Swift compiler.

Constants and documents are read from the sources. Functions that only compute are translated line
by line and run beside ours, so that a change on either side fails here. Whether the package
compiles is only found out on a Mac.
"""

import ast
import math
import re
import struct
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeseg import prompts, signature
from edgeseg.bench.results import BenchResult, ColdStart, ContenderCard, Measurement, Missing
from edgeseg.export_manifest import ExportedFile, ExportManifest
from edgeseg.geometry import ModelFrame, content_size_hw
from edgeseg.postprocess import choose_mask, upsample_masks
from edgeseg.prompt_packing import pack_prompts
from edgeseg.prompts import ABSENT, Prompt
from edgeseg.proposals import CellProposals, read_proposals
from edgeseg.runtime.coreml_backend import COMPUTE_UNITS
from edgeseg.runtime.model_input import model_input
from edgeseg.signature import ModelShape, PromptSlots

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "export/iphone"
SOURCES = {path.name: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.swift"))}
ALL = "\n".join(SOURCES.values())
SHAPES_HW = [(48, 64), (64, 48), (5, 7), (64, 64), (1, 100), (150, 37), (33, 96), (63, 65)]
"""Larger and smaller than the 64 pixels of the models here, and of one size with them."""


# Reading Swift


def block(opening: str) -> str:
    """Return a declaration, from the pattern it begins with to its last brace."""
    found = re.search(opening, ALL, re.MULTILINE)
    assert found, f"no {opening} in the Swift sources"
    depth = 0
    for end in range(found.start(), len(ALL)):
        depth += {"{": 1, "}": -1}.get(ALL[end], 0)
        if ALL[end] == "}" and depth == 0:
            return ALL[found.start() : end + 1]
    raise AssertionError(f"{opening} has no end")


def constants(enum: str) -> dict[str, object]:
    found = re.findall(r"static let (\w+)(?:: [\w\[\]]+)? = (.+)", block(rf"enum {enum} "))
    return {name: ast.literal_eval(value) for name, value in found}


def tensor_names() -> dict[str, str]:
    return {k: v for k, v in constants("Signature").items() if isinstance(v, str)}


def stored_properties(struct_name: str) -> dict[str, str]:
    """Return what a struct stores: names as they stand in JSON, and Swift's types."""
    _, *lines = block(rf"struct {struct_name}: (?:Enc|Dec)odable").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    pattern = rf" {{{indent}}}(?:public )?(?:let|var) (\w+): ([^={{]+)"
    found = [re.fullmatch(pattern, line) for line in lines]
    return {snake(match[1]): match[2] for match in found if match}


def snake(name: str) -> str:
    """Return what Swift's `convertToSnakeCase` makes of a name."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def sample(swift_type: str) -> object:
    """Return a value as Swift's encoder writes it for a type."""
    plain = {"String": "text", "Int": 1, "Double": 1.5, "Bool": True, "[String: Int]": {"a": 1}}
    if swift_type in plain:
        return plain[swift_type]
    if swift_type.startswith("["):
        return [sample(swift_type[1:-1])]
    return {name: sample(kind) for name, kind in stored_properties(swift_type).items()}


# Running Swift


class Taps(SimpleNamespace):
    def __init__(self):
        super().__init__(sources=[], weights=[], starts=[0])


class Line(list):
    def initialize(self, repeating):
        self[:] = [np.float32(repeating)] * len(self)


def divide(above, below):
    """Divide as Swift does: whole numbers stay whole."""
    return above // below if isinstance(above, int) and isinstance(below, int) else above / below


def from_bits(bits):
    return np.float32(struct.unpack("f", struct.pack("I", bits))[0])


def surroundings() -> dict[str, object]:
    """Return what translated functions find around them."""
    return {
        "ceil": math.ceil,
        "float32": np.float32,
        "from_bits": from_bits,
        "divide": divide,
        "Taps": Taps,
        "Line": Line,
        "Box": SimpleNamespace,
        "Proposal": SimpleNamespace,
        "PackedPrompt": lambda: SimpleNamespace(pointsXY=[], labels=[]),
        "Signature": SimpleNamespace(**constants("Signature")),
        "PointLabel": SimpleNamespace(**constants("PointLabel")),
        "mostConfident": lambda scores: np.argsort(-np.asarray(scores), kind="stable").tolist(),
        "check": lambda in_: None,
        "refuse": lambda is_wrong, message: None,
        "self": SimpleNamespace(),
    }


HEADERS = (
    (
        r"for (\w+) in stride\(from: (.+), through: (.+), by: -1\)",
        r"for \1 in range(\2, \3 - 1, -1)",
    ),
    (r"for (\w+) in (.+)\.\.<(.+)", r"for \1 in range(\2, \3)"),
    (r"if let (\w+) = \1", r"if \1 is not None"),
    (r"(\w+)\.withUnsafeBufferPointer", "if True"),
)
EXPRESSIONS = (
    (r"^(?:let|var) ", ""),
    (r"^(\w+|\([\w, ]+\)): [^=]+ = ", r"\1 = "),  # a type
    (r"\btry ", ""),
    (r"UnsafeMutableBufferPointer<Float>\.allocate\(capacity: (.+)\)$", r"Line([0] * (\1))"),
    (r"\[(\w+)\]\(repeating: (\w+), count: (.+)\)$", r"[\1(\2)] * (\3)"),
    (r"((?:\w+\.)*\w+)\.count\b", r"len(\1)"),
    (r"\.prefix\((.+)\)$", r"[:\1]"),
    (r"Float\(bitPattern: ", "from_bits("),
    (r"\bin: ", "in_="),
    (r"(\w+): ", r"\1="),
    (r"&&", "and"),
    (r"\|\|", "or"),
    (r"!(?=[\w(])", "not "),
    (r"\b(?:Int|UInt8|UInt32)\(", "int("),
    (r"\bDouble\(", "float("),
    (r"\bFloat\(", "float32("),
    (r"\bBool\(", "bool("),
    (r"\bfalse\b", "False"),
    (r"\btrue\b", "True"),
    (r"\bnil\b", "None"),
)


def translated(text: str, *rules: tuple[str, str]) -> str:
    for pattern, replacement in rules or EXPRESSIONS:
        text = re.sub(pattern, replacement, text)
    return text


def statements(source: str) -> list[str]:
    """Return lines without comments and messages, each whole to its last parenthesis."""
    found, unfinished = [], ""
    for line in source.splitlines():
        text = re.sub(r'"(?:\\.|[^"\\])*"', "''", line.partition("//")[0]).strip()
        unfinished = f"{unfinished} {text}".strip()
        if unfinished and balance(unfinished, "([", ")]") == 0:
            found.append(unfinished)
            unfinished = ""
    return found


def balance(text: str, opening: str, closing: str) -> int:
    return sum(map(text.count, opening)) - sum(map(text.count, closing))


def python_of(source: str, name: str) -> str:
    """Translate a Swift function."""
    head, *body, _ = statements(source)
    parameters = re.search(r"\((.*)\)(?: throws)?(?: -> \S+)? \{$", head)
    names = [part.split(":")[0].split()[-1] for part in parameters[1].split(", ")]
    lines, depth = [f"def {name}({', '.join(names)}):"], 1
    for statement in body:
        header, brace, rest = statement.partition(" {")
        if statement == "}":
            depth -= 1
        elif header == "defer":
            continue
        elif not brace:
            lines.append(" " * depth + translated(statement))
        else:
            lines.append(" " * depth + translated(translated(header, *HEADERS)) + ":")
            depth += 1
            if closure := re.fullmatch(r" \((\w+): .* in", rest):
                lines.append(" " * depth + f"{closure[1]} = {header.partition('.')[0]}")
            elif rest:  # a body on the same line
                lines.append(" " * depth + translated(rest.removesuffix("}").strip()))
                depth -= 1
    return "\n".join(lines)


class Divisions(ast.NodeTransformer):
    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.Div):
            return node
        return ast.Call(ast.Name("divide", ast.Load()), [node.left, node.right], [])


def compiled(python: str, mode: str):
    return compile(
        ast.fix_missing_locations(Divisions().visit(ast.parse(python, mode=mode))), "swift", mode
    )


def run_swift(*functions: str, **names: object) -> SimpleNamespace:
    """Translate functions and return them, among other names that they find."""
    around = {**surroundings(), **names}
    for function in functions:
        exec(compiled(python_of(block(rf"func {function}\("), function), "exec"), around)
    return SimpleNamespace(**around)


def swift_frame(image_hw: tuple[int, int], image_size: int) -> SimpleNamespace:
    """Return Swift's `ModelFrame` of an image."""
    swift = run_swift("contentSide")
    source = block("struct ModelFrame")
    constructor = python_of(
        source[source.index("public init(") : source.index("\n    }\n") + 6], "init"
    )
    exec(compiled(constructor, "exec"), vars(swift))
    swift.init(image_hw[1], image_hw[0], image_size)
    for name, value in re.findall(r"var (\w+): \w+ \{ return (.+) \}", source):
        known = {**vars(swift), **vars(swift.self)}
        setattr(swift.self, name, eval(compiled(translated(value), "eval"), known))
    return swift.self


# Constants and documents


def test_every_tensor_is_called_as_in_the_signature():
    for swift_name, name in tensor_names().items():
        assert getattr(signature, snake(swift_name).upper()) == name


def test_the_signature_has_every_tensor_that_the_released_packages_need():
    shape = ModelShape(64, 32, has_high_res=True)
    specs = (
        signature.encoder_spec(shape, normalises=True),
        signature.decoder_spec(shape, PromptSlots(1, 6), "int32"),
        signature.proposals_spec(shape),
    )
    needed = {tensor.name for spec in specs for tensor in (*spec.inputs, *spec.outputs)}

    assert set(tensor_names().values()) == needed - {signature.PROPOSAL_CLICK_LOGITS}


def test_names_of_tensors_stand_in_one_file():
    literals = {f'"{value}"' for value in vars(signature).values() if isinstance(value, str)}

    for name, source in SOURCES.items():
        if name != "Signature.swift":
            assert not [literal for literal in literals if literal in source], name


def test_sizes_and_the_colour_of_padding_are_those_of_the_signature():
    swift = constants("Signature")

    assert tuple(swift["paddingRGB"]) == signature.PADDING_RGB
    assert tuple(swift["proposalStrides"]) == signature.PROPOSAL_STRIDES


@pytest.mark.parametrize("path", sorted((ROOT / "export/targets").glob("coreml_*.toml")), ids=str)
def test_released_core_ml_targets_have_the_slots_that_swift_fills(path):
    slots = tomllib.loads(path.read_text("utf-8"))["slots"]

    swift = constants("Signature")
    assert (swift["numPrompts"], swift["numPointSlots"]) == (
        slots["num_prompts"],
        slots["num_points"],
    )


def test_labels_of_points_are_those_of_prompts():
    labels = constants("PointLabel")

    assert {"negative", "positive", "boxTopLeft", "boxBottomRight", "absent"} == labels.keys()
    for name, label in labels.items():
        assert getattr(prompts, snake(name).upper()) == label


@pytest.mark.parametrize(
    ("document", "not_known_on_a_phone"),
    [
        (BenchResult, set()),
        (ContenderCard, {"num_parameters", "macs", "num_activations"}),
        (Measurement, {"reported"}),
        (ColdStart, set()),
        (Missing, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_document_has_the_keys_that_the_harness_reads(document, not_known_on_a_phone):
    keys = set(stored_properties(document.__name__))

    assert keys == set(document.model_fields) - not_known_on_a_phone


def test_the_harness_reads_a_document_of_the_types_that_swift_writes():
    result = BenchResult.model_validate(sample("BenchResult"))

    assert result.machine["processor"] == "text"
    assert result.measurements[0].samples_ms == (1.5,)
    assert ".convertToSnakeCase" in block("struct BenchResult")


def test_keys_of_the_manifest_are_those_that_an_export_writes():
    manifest, file = stored_properties("ExportManifest"), stored_properties("File")

    assert {"format_version", "model", "files", "weights_sha256"} <= manifest.keys()
    assert manifest.keys() <= ExportManifest.model_fields.keys()
    assert file.keys() == {"path", "role", "sha256", "size_bytes"}
    assert file.keys() <= ExportedFile.model_fields.keys()


def test_compute_units_have_the_names_of_the_runtime():
    assert set(re.findall(r'case \.\w+: return "(\w+)"', block(r"func name\(of"))) == set(
        COMPUTE_UNITS
    )


# Arithmetic


def test_sides_are_rounded_as_in_python():
    side = run_swift("contentSide").contentSide

    for image_size in (64, 192, 384, 512, 1024):  # thirds and fifths end on halves now and then
        for longest in (1, 2, 3, 7, 63, 64, 65, 640, 1000, 1365, 2048, 3000, 4032):
            for other in {*range(1, longest + 1, 1 + longest // 50), longest}:
                expected = content_size_hw((other, longest), image_size)
                ours = side(other, longest, image_size), side(longest, longest, image_size)
                assert ours == expected


@pytest.mark.parametrize("image_hw", SHAPES_HW, ids=str)
def test_an_image_has_the_same_frame(image_hw):
    swift, python = swift_frame(image_hw, 64), ModelFrame(image_hw, 64)

    assert (swift.contentHeight, swift.contentWidth) == python.content_hw
    assert [swift.scaleX, swift.scaleY] == python.scale_xy.tolist()
    assert swift.lowResSide == 16


@pytest.mark.parametrize("image_hw", SHAPES_HW, ids=str)
def test_few_scaled_pixels_differ_and_by_one_at_most(image_hw):
    image = np.random.default_rng(0).integers(0, 256, (*image_hw, 3), np.uint8)
    picture = np.concatenate([image, image[..., :1]], axis=2).reshape(-1).tolist()
    row_bytes = 4 * 64 + 12  # Core Video leaves room between rows
    target = [0] * (64 * row_bytes)

    swift = run_swift("areaTaps", "linearTaps", "scaleAndPad")
    swift.scaleAndPad(picture, swift_frame(image_hw, 64), target, row_bytes)

    written = np.array(target).reshape(64, row_bytes)[:, : 4 * 64].reshape(64, 64, 4)
    expected = model_input(image, 64, normalises=True).astype(int)
    height, width = content_size_hw(image_hw, 64)
    differences = np.abs(written[..., 2::-1] - expected)
    assert differences.max() <= 1
    assert differences.mean() < 0.15  # one in ten when the picture grows; OpenCV rounds in between
    assert (written[height:, :, 2::-1] == expected[height:]).all()
    assert (written[:, width:, 2::-1] == expected[:, width:]).all()
    assert (written[..., 3] == 255).all()


@pytest.mark.parametrize("image_hw", SHAPES_HW, ids=str)
def test_masks_have_the_same_pixels(image_hw):
    logits = np.random.default_rng(1).normal(size=(16, 16)).astype(np.float32)
    logits[3:6] = -1  # rows that hold nothing

    swift = run_swift("linearTaps", "numContentCells", "upsampledMask")
    mask = swift.upsampledMask(list(logits.reshape(-1)), swift_frame(image_hw, 64))

    expected = upsample_masks(logits[None], ModelFrame(image_hw, 64))[0]
    np.testing.assert_array_equal(np.reshape(mask, image_hw), expected)


@pytest.mark.parametrize(
    ("labels", "has_mask"), [([1, ABSENT], False), ([1, ABSENT], True), ([2, 3], False)]
)
def test_the_same_answer_is_chosen(labels, has_mask):
    choose = run_swift("chooseToken").chooseToken
    is_single = labels[1] == ABSENT and not has_mask

    for scores in ([0.9, 0.1, 0.3, 0.2], [0, 0.5, 0.5, 0.5], [1, 0.1, 0.2, 0.3]):
        row = np.float32([scores])
        expected = choose_mask(row, np.array([labels]), np.array([has_mask]))
        assert choose(scores, is_single) == expected[0]


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(points_xy=[(3, 2)]),
        Prompt(points_xy=[(3, 2), (90.5, 20)], point_labels=[0, 1]),
        Prompt(box_xyxy=(1, 2, 30, 20)),
        Prompt(points_xy=[(3, 2)], point_labels=[1], box_xyxy=(1, 2, 30, 20)),
        Prompt(mask_logits=np.zeros((16, 16))),
        Prompt(points_xy=[(3, 2)], mask_logits=np.zeros((16, 16))),
    ],
)
def test_a_prompt_fills_the_same_slots(prompt):
    frame = ModelFrame((33, 100), 64)
    box = prompt.box_xyxy
    swift = run_swift(
        "packed",
        points=[SimpleNamespace(x=x, y=y) for x, y in prompt.points_xy.tolist()],
        labels=prompt.point_labels.tolist(),
        box=None
        if box is None
        else SimpleNamespace(**dict(zip(("x0", "y0", "x1", "y1"), box, strict=True))),
        maskLogits=None if prompt.mask_logits is None else [0.0] * 256,
    )

    ours, theirs = swift.packed(swift_frame((33, 100), 64)), pack_prompts([prompt], frame)

    num_points = theirs.point_labels.shape[1]
    assert ours.labels == theirs.point_labels[0].tolist() + [ABSENT] * (6 - num_points)
    assert ours.pointsXY == theirs.points_xy.reshape(-1).tolist() + [0, 0] * (6 - num_points)
    is_chosen_by_score = choose_mask(
        np.float32([[1, 0, 1, 0]]), theirs.point_labels, theirs.has_mask
    )
    assert ours.isAmbiguous == (is_chosen_by_score[0] == 2)


def test_the_same_boxes_are_proposed():
    frame = ModelFrame((33, 100), 64)
    generator = np.random.default_rng(2)
    first = generator.uniform(-10, 64, (85, 2))
    boxes = np.concatenate([first, first + generator.uniform(0, 30, (85, 2))], 1).astype(np.float32)
    scores = generator.choice(9, 85).astype(np.float32) / 9  # many are equal

    swift = run_swift("numProposals", "clamped", "readProposals")
    ours = swift.readProposals(
        list(boxes.reshape(-1)), list(scores), swift_frame((33, 100), 64), 50
    )

    theirs = read_proposals(CellProposals(boxes, scores, scores), frame, 50)
    assert swift.numProposals(64) == 85
    assert 0 < len(ours) < 50  # some are too small
    assert [proposal.score for proposal in ours] == theirs.scores.tolist()
    found = [[each.box.x0, each.box.y0, each.box.x1, each.box.y1] for each in ours]
    np.testing.assert_array_equal(np.float32(found), theirs.boxes_xyxy)


def test_rows_of_an_array_with_room_between_them_are_found():
    array = np.arange(2 * 3 * 5 * 8).reshape(2, 3, 5, 8)[:, :, :4, :7]
    strides = [step // array.itemsize for step in array.strides]
    offset = run_swift("rowOffset").rowOffset

    starts = [offset(row, list(array.shape), strides) for row in range(2 * 3 * 4)]

    assert starts == array[..., 0].reshape(-1).tolist()


def test_halves_become_floats():
    to_float = run_swift("floatOfHalf").floatOfHalf
    bits = np.arange(0, 1 << 16, dtype=np.uint16)
    halves = bits.view(np.float16)
    finite = np.isfinite(halves)

    ours = [to_float(int(each)) for each in bits[finite][::7]]

    assert ours == halves[finite][::7].astype(np.float32).tolist()


# Form


@pytest.mark.parametrize("name", SOURCES)
def test_brackets_are_closed_and_lines_are_short(name):
    text = re.sub(r'"(?:\\.|[^"\\])*"|//.*', "", SOURCES[name])
    expected = []
    for character in text:
        if character in "([{":
            expected.append({"(": ")", "[": "]", "{": "}"}[character])
        elif character in ")]}":
            assert expected.pop() == character

    assert not expected
    assert max(map(len, SOURCES[name].splitlines())) <= 100


@pytest.mark.parametrize("name", SOURCES)
def test_every_public_name_is_explained(name):
    above = ""
    for line in SOURCES[name].splitlines():
        if re.match(r" *public (?!init\(\))", line):
            assert above.startswith("///"), line
        above = line.strip()


def test_the_readme_says_what_was_not_tried():
    readme = (PACKAGE / "README.md").read_text("utf-8")

    assert "not yet compiled or run on a device" in readme.lower()
    for target in re.findall(r"--target (\w+)", readme):
        assert (ROOT / f"export/targets/{target}.toml").is_file()
