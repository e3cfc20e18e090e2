"""The recipe of chapter 15: a causal transformer over the pixels of the 8x8 digits."""

from course_lib.autoregressive import PixelTransformer
from course_lib.data import load_digits
from course_lib.training.batches import DIGIT_LEVELS, digits_batch
from course_lib.training.recipes import Recipe, register
from course_lib.training.recipes_autoregressive import DIGITS, grey_digits, joint_metrics

register(
    Recipe(
        name="pixel_transformer_digits",
        summary="a causal transformer, given the class, on the 8x8 digits in 17 grey levels",
        data=DIGITS.format("17 grey levels"),
        build=lambda: PixelTransformer(8, DIGIT_LEVELS, dim=64, depth=3, heads=4, n_classes=10),
        load=lambda: load_digits("train"),
        transform=digits_batch("levels"),
        options={"steps": 3000, "batch_size": 64, "lr": 2e-3, "weight_decay": 0.1, "ema": 0.998},
        evaluate=lambda model: joint_metrics(model, *grey_digits("test")),
    )
)
