import torch

from edgeseg.distill.remembering_teacher import RememberingTeacher
from edgeseg.distill.teachers import NetTeacher
from edgeseg.modeling.prompt_batch import box_or_point_prompts
from edgeseg.modeling.registry import build_model


class CountingTeacher:
    """Counts what it encodes; answers with the sum of the images."""

    def __init__(self):
        self.num_embedded = 0

    def embed(self, images):
        self.num_embedded += 1
        return images.sum()


def test_the_same_tensor_is_encoded_once():
    teacher = CountingTeacher()
    remembering = RememberingTeacher(teacher, num_batches=2)
    first, second = torch.ones(1), torch.full((1,), 2.0)

    answers = [remembering.embed(images).item() for images in (first, second, first, second)]

    assert answers == [1, 2, 1, 2]
    assert teacher.num_embedded == 2


def test_equal_images_of_another_tensor_are_encoded_again():
    teacher = CountingTeacher()
    remembering = RememberingTeacher(teacher, num_batches=2)

    remembering.embed(torch.ones(1))
    remembering.embed(torch.ones(1))

    assert teacher.num_embedded == 2


def test_the_oldest_batch_is_forgotten_first():
    teacher = CountingTeacher()
    remembering = RememberingTeacher(teacher, num_batches=2)
    batches = [torch.full((1,), float(k)) for k in range(3)]

    for images in (*batches, batches[2], batches[1]):
        remembering.embed(images)
    assert teacher.num_embedded == 3

    remembering.embed(batches[0])
    assert teacher.num_embedded == 4


def test_everything_else_is_the_teachers():
    torch.manual_seed(0)
    teacher = NetTeacher(build_model("vit_tiny"))
    remembering = RememberingTeacher(teacher, 1)
    size = teacher.image_size
    features = teacher.embed(torch.zeros(1, 3, size, size))
    points = torch.tensor([[9.0, 9.0]])
    prompts = box_or_point_prompts(torch.zeros(1, 4), points, torch.tensor([False]), (1,))

    assert (remembering.name, remembering.image_size) == (teacher.name, size)
    assert remembering.fingerprint == teacher.fingerprint
    assert remembering.feature_shapes() == teacher.feature_shapes()
    expected = teacher.answer(features, prompts).low_res_logits
    assert torch.equal(remembering.answer(features, prompts).low_res_logits, expected)
