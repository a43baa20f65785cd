import pytest
from exported_folders import write_folder  # conftest.py extends the path
from tool_requests import request

from edgeseg.bench.results import Document, Measurement
from edgeseg.bench.tool_request import (
    Arguments,
    FileCall,
    measure_each,
    plan_calls,
    read_files,
    read_options,
    report_of,
)
from edgeseg.errors import BenchError, ConfigError, ExportError
from edgeseg.export_manifest import ExportedFile, ExportedTensor, read_export, write_export
from edgeseg.signature import PromptSlots


class Settings(Document):
    speed: int = 1
    arguments: Arguments = ()


def planned(folder, *parts):
    manifest = read_export(folder)
    calls, missing = plan_calls(request(folder, "trtexec", parts), folder, manifest)
    return {call.part: call for call in calls}, {each.part: each.reason for each in missing}


def changed(folder, **changes):
    write_export(folder, read_export(folder).model_copy(update=changes))
    return folder


def test_options_become_numbers_and_words(tmp_path):
    contender = request(tmp_path, "trtexec", speed="7", arguments="--a 'b c'").contender

    assert read_options(contender, Settings) == Settings(speed=7, arguments="--a 'b c'")
    assert read_options(contender, Settings).arguments == ("--a", "b c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sped": "7"}, "option sped of 'ours': Extra inputs are not permitted, got '7'"),
        ({"speed": "fast"}, "option speed of 'ours': .* got 'fast'; .* has the options speed, arg"),
        ({"arguments": "'"}, 'option arguments of .*: No closing quotation, got "\'"'),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        read_options(request(tmp_path, "trtexec", **options).contender, Settings)


def test_a_folder_of_the_right_format_is_read(exported):
    assert read_files(request(exported, "adb"), "onnx") == (exported, read_export(exported))


def test_a_request_without_files_is_refused(exported):
    asked = request(exported, "adb")
    without = type(asked)(asked.contender, None, *_rest(asked))

    with pytest.raises(ConfigError, match="driver adb measures exported files, got none; give a"):
        read_files(without, "onnx")


def _rest(asked):
    return asked.parts, asked.rounds, asked.threads, asked.photo


def test_files_of_another_format_are_refused(exported):
    with pytest.raises(ExportError, match="holds onnx files, which the driver iphone cannot meas"):
        read_files(request(exported, "iphone"), "coreml")


def test_open_sizes_are_the_prompts_asked_and_two_points(exported):
    calls, missing = planned(exported, "encoder", "decoder", "decoder@8")

    assert missing == {}
    assert calls["encoder"].path == exported / "encoder.onnx"
    assert calls["encoder"].open_sizes == {}
    assert calls["decoder"].open_sizes == {"N": 1, "P": 2}
    assert calls["decoder@8"].open_sizes == {"N": 8, "P": 2}
    assert calls["decoder@8"].shape("points_xy_model") == (8, 2, 2)
    assert calls["decoder@8"].shape("mask_logits") == (8, 1, 16, 16)  # 64 pixels, a quarter
    assert {call.note for call in calls.values()} == {""}


def test_a_decoder_with_fixed_slots_answers_one_prompt_or_all(tmp_path):
    folder = write_folder(tmp_path / "fixed", slots=PromptSlots(16, 6), normalises=True)

    calls, missing = planned(folder, "decoder", "decoder@8", "decoder@16")

    assert list(calls) == ["decoder", "decoder@16"]
    assert calls["decoder"].note == "a call computes all of its 16 prompts"
    assert calls["decoder@16"].note == ""
    assert calls["decoder@16"].shape("points_xy_model") == (16, 6, 2)
    assert missing == {
        "decoder@8": "the file takes 16 prompts a call, got 8; ask for decoder@16, or export a "
        "target that takes any number"
    }


def test_parts_that_single_files_cannot_answer_are_missing(exported):
    calls, missing = planned(exported, "proposals", "everything", "end_to_end", "batch@4")

    assert calls == {}
    assert missing == {
        "proposals": "the exported folder has no file for proposals",
        "everything": "such a tool times single files, and this needs the program around them",
        "end_to_end": "such a tool times single files, and this needs the program around them",
        "batch@4": "the exported encoder takes one image a call",
    }


def test_proposals_are_measured_where_they_were_exported(exported):
    manifest = read_export(exported)
    proposals = manifest.files[0].model_copy(update={"role": "proposals"})
    changed(exported, files=(*manifest.files, proposals))

    calls, missing = planned(exported, "proposals")

    assert (list(calls), missing) == (["proposals"], {})


def test_the_decoder_of_other_programs_is_missing(exported):
    calls, missing = planned(changed(exported, format="onnx_sam_compatible"), "encoder", "decoder")

    assert list(calls) == ["encoder"]
    assert "the size of the masks is one of the inputs" in missing["decoder"]


def test_letters_that_are_no_prompts_are_sides_of_the_input(tmp_path):
    image = ExportedTensor(name="input_image", shape=("height", "width", 3), dtype="float32")
    points = ExportedTensor(name="coords", shape=(1, "num_points", 2), dtype="float32")
    folder = write_folder(tmp_path / "sam")
    file = read_export(folder).files[0].model_copy(update={"inputs": (image, points)})
    changed(folder, files=(file,))

    calls, _ = planned(folder, "encoder")

    assert calls["encoder"].shape("input_image") == (64, 64, 3)
    assert calls["encoder"].shape("coords") == (1, 2, 2)


def call(part):
    file = ExportedFile(
        path="a.onnx", role="encoder", sha256="0" * 64, size_bytes=1, inputs=(), outputs=()
    )
    return FileCall(part, None, file, {})


def measurement(part):
    return Measurement(label="ours", part=part, samples_ms=(1.0,), in_turns=False, num_warmup=0)


def failing_on(*parts):
    def measure(asked):
        if asked.part in parts:
            raise BenchError(f"{asked.part} broke")
        return measurement(asked.part)

    return measure


def test_a_part_that_fails_does_not_take_the_others_with_it():
    calls = [call("encoder"), call("decoder"), call("proposals")]

    measured, missing = measure_each(calls, "ours", failing_on("decoder"))

    assert [each.part for each in measured] == ["encoder", "proposals"]
    assert [(each.part, each.reason) for each in missing] == [("decoder", "decoder broke")]


def test_a_tool_that_fails_on_everything_has_failed():
    with pytest.raises(BenchError, match="^encoder broke$"):
        measure_each([call("encoder"), call("decoder")], "ours", failing_on("encoder", "decoder"))


def test_nothing_to_measure_is_no_failure():
    assert measure_each([], "ours", failing_on()) == ((), ())


def test_the_card_is_that_of_the_files(exported):
    manifest = read_export(exported)

    report = report_of(request(exported, "adb"), manifest, "a phone", "int8", [], [])

    assert report.card.label == "ours"
    assert report.card.model == "tiny_pair"
    assert report.card.driver == "adb"
    assert report.card.runs_on == "a phone"
    assert report.card.precision == "int8"
    assert report.card.image_size == 64
    assert report.card.weights_sha256 == manifest.weights_sha256
    assert report.card.size_bytes == {
        "encoder": (exported / "encoder.onnx").stat().st_size,
        "decoder": (exported / "decoder.onnx").stat().st_size,
    }
