"""Fixed views of training images and what is kept of them."""

import numpy as np
import pytest
import torch
from tiny_domain import records_of, write_domain

from edgeseg.adapt.adapted import AdaptedNet
from edgeseg.adapt.cached_views import CachedViews, cache_views, draw_views
from edgeseg.adapt.settings import ConvolutionalSettings, NeckDeltaSettings
from edgeseg.data.augmentation import AugmentationConfig, ColorConfig, CropConfig, View
from edgeseg.data.copy_paste import PasteConfig
from edgeseg.data.samples import SampleSettings
from edgeseg.errors import ConfigError, DataError
from edgeseg.modeling.registry import build_model

SIZE = 64
VARIED = AugmentationConfig(crop=CropConfig(), color=ColorConfig())


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("discs") / "train"
    write_domain(folder, 4)
    return records_of(folder)


def pack_net(settings=NeckDeltaSettings(rank=2), seed=3):  # noqa: B008  # frozen
    torch.manual_seed(seed)
    return AdaptedNet(build_model("edgeseg_tiny").eval(), settings)


def views_of(records, number=3, seed=0):
    return draw_views(records, number, VARIED, SIZE, seed)[0]


def test_the_first_view_is_the_image_as_it_is_and_the_others_are_not(records):
    views = views_of(records)

    plain = View.plain((48, 64))
    assert len(views) == 12
    for start in range(0, 12, 3):
        assert views[start].view.window_xyxy == plain.window_xyxy
        assert not views[start].view.flip_x
        assert views[start].view.color_matrix is None
        assert len({view.name for view in views[start : start + 3]}) == 3


def test_more_images_and_more_views_leave_those_there_are(records):
    few = {view.name for view in views_of(records[:2], 2)}
    many = {view.name for view in views_of(records, 4)}

    assert few < many
    assert not {v.name for v in views_of(records[:2], 2, seed=1)[1::2]} & many


def test_images_that_cannot_be_used_are_told_and_left_out(records, tmp_path):
    write_domain(tmp_path / "d", 2)
    (tmp_path / "d" / "i0.json").write_text('{"annotations": []}')
    (tmp_path / "d" / "i1.png").write_bytes(b"no image")
    broken = records_of(tmp_path / "d")

    views, messages = draw_views([*records, *broken], 1, VARIED, SIZE, 0)

    assert len(views) == 4
    assert len(messages) == 2
    with pytest.raises(DataError, match="none of 2 images can be used"):
        draw_views(broken, 1, VARIED, SIZE, 0)


def test_views_that_cannot_be_kept_are_refused(records):
    with pytest.raises(ConfigError, match="views must be at least 1, got 0"):
        draw_views(records, 0, VARIED, SIZE, 0)
    with pytest.raises(ConfigError, match=r"remove augmentation\.paste"):
        draw_views(records, 2, AugmentationConfig(paste=PasteConfig()), SIZE, 0)


@pytest.mark.parametrize("settings", [NeckDeltaSettings(rank=2), ConvolutionalSettings(width=4)])
def test_what_is_kept_is_what_the_encoder_makes_of_the_sample(records, tmp_path, settings):
    net, views = pack_net(settings), views_of(records)
    lookup = cache_views(tmp_path / "cache", net, views)
    dataset = CachedViews(views, SampleSettings(student_size=SIZE, augmentation=VARIED), 0, lookup)

    for position in range(12):
        sample = dataset[position]
        with torch.no_grad():
            read = net.read(torch.from_numpy(sample.student_image)[None])
        wanted = net.read_shapes().pack(read)[0].numpy()
        kept = sample.teacher_embedding[:, 0, 0].astype(np.float32)
        np.testing.assert_allclose(kept, wanted, rtol=2e-3, atol=2e-3)


def test_a_flipped_view_is_not_the_flipped_embedding(records, tmp_path):
    net = pack_net(ConvolutionalSettings(width=4))
    always = AugmentationConfig(horizontal_flip=1.0)
    views, _ = draw_views(records[:1], 2, always, SIZE, 0)
    lookup = cache_views(tmp_path / "cache", net, views)

    plain, flipped = (lookup(view.name)[: 32 * 16].reshape(32, 4, 4) for view in views)

    assert not np.allclose(plain[..., ::-1], flipped, atol=1e-2)


def test_prompts_are_drawn_anew_each_time_a_view_comes_up(records, tmp_path):
    net, views = pack_net(), views_of(records[:1], 1)
    lookup = cache_views(tmp_path / "cache", net, views)
    dataset = CachedViews(views, SampleSettings(student_size=SIZE), 0, lookup)

    first, second = dataset[0], dataset[1]

    assert np.array_equal(first.student_image, second.student_image)
    assert not np.array_equal(first.points_xy, second.points_xy)
    assert np.array_equal(dataset[1].points_xy, second.points_xy)  # but the same when asked again


def test_a_cache_is_filled_once(records, tmp_path, monkeypatch):
    net, views = pack_net(), views_of(records)
    cache_views(tmp_path / "cache", net, views[:5])
    read = []
    monkeypatch.setattr(net, "read", lambda images: read.append(len(images)) or original(images))
    original = type(net).read.__get__(net)

    cache_views(tmp_path / "cache", net, views)
    cache_views(tmp_path / "cache", net, views)

    assert sum(read) == 7


def test_another_base_and_other_packs_have_caches_of_their_own(records, tmp_path):
    views = views_of(records, 1)
    finer = pack_net()
    with torch.no_grad():
        finer.mask_decoder.high_res_s8.weight += 1  # the encoder is the same
    nets = [pack_net(), pack_net(seed=4), pack_net(ConvolutionalSettings(width=4)), finer]

    rows = [cache_views(tmp_path / "cache", net, views)(views[0].name) for net in nets]

    assert len(list((tmp_path / "cache").iterdir())) == 4
    assert not any(np.array_equal(row, rows[0]) for row in rows[1:])
