"""Every setting with its default, what it means and what it may be: the only place of any of them.

A section is a frozen dataclass; the main command's flags, `--help`, and the keywords of the Python
API are made from these. Nothing of the package is imported here but what a section is, so that
every room may read its own section.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ltx_jax.errors import InputError
from ltx_jax.settings.section import Section, setting

# Steps, as int32 counts them.
_LONGEST = 2**31 - 1

# The prediction term by (logits_only, counterfactual), and the mask term by mask_loss.
PREDICTION_TERMS = {
    (False, False): "cross_entropy",
    (True, False): "logit",
    (False, True): "counterfactual",
    (True, True): "counterfactual_logit",
}
MASK_TERMS = {"bce": "mask_bce", "l1": "mask_l1", "entropy": "mask_entropy"}


@dataclass(frozen=True)
class Network(Section):
    """The explainee, by name and weights."""

    name: str = setting("vit_base_patch16_224", "timm name")
    weights: str | None = setting(
        None,
        "a .safetensors file; from the hub where not given; `fresh`, for task=train_classifier, "
        "starts from nothing",
    )
    sizes: Mapping[str, Any] = setting(
        {"num_classes": None}, "module attributes unlike the published network's"
    )
    link: Literal["softmax", "sigmoid"] = setting(
        "softmax", "whether one class is the answer, or each is there or is not"
    )
    trained: Literal["all", "head"] = setting(
        "all", "what of it task=train_classifier trains: all, or the classifier on its features"
    )


@dataclass(frozen=True)
class MaskDrawer(Section):
    """The explainer, what draws a mask: its own values, or a backbone with a mask head."""

    trained: Literal["mask", "all", "head", "lora"] = setting(
        "mask",
        "the mask's own raw values, without any network; or of a network all, the mask head alone, "
        "or the head and low-rank updates (ViTs)",
    )
    classes: int | None = setting(
        None,
        "masks that a network draws: 1, whatever the class, or one for each of the explainee's "
        "(NN-Explainer); the checkpoint's where not given, or 1",
        least=1,
    )
    head: Literal["plain", "deeplab"] | None = setting(
        None,
        "of a network: plain, one layer on its features as the original's; or DeepLabv3's, on a "
        "CNN's; the checkpoint's where not given, or plain",
    )
    edge_radius: int | None = setting(
        None,
        "radius in pixels of the filter by which masks of every class follow an image's edges, of "
        "a CNN trained whole; 0 for none; the checkpoint's where not given, or 0",
        least=0,
    )
    start: str | None = setting(
        None,
        "of a mask: centre, pltx (the checkpoint's), or a rival's name; if not given pltx where "
        "there is a checkpoint, grad_cam where there are features, else gradient_x_input",
    )
    grid: int | None = setting(
        None, "cells of a mask along the longer side; of about 8 pixels, 8 to 14", least=1
    )
    name: str | None = setting(
        None, "timm name of its backbone; the checkpoint's where not given, or the explainee's"
    )
    weights: str | None = setting(None, "of the backbone where there is no checkpoint")
    checkpoint: str | None = setting(
        None, "a pretrained explainer, which says itself what network it is"
    )
    activation: Literal["sigmoid", "relu", "softmax", "clamp"] | None = setting(
        None,
        "from raw values to mask values; clamp limits them to [0,1]; the checkpoint's where not "
        "given, or sigmoid",
    )
    head_bias: float | None = setting(
        None, "of a fresh mask head's last layer; a positive one starts from a mask that shows most"
    )
    frozen_blocks: int | None = setting(
        None,
        "first blocks of a ViT that are not trained; the checkpoint's where not given, or 0",
        least=0,
    )
    lora_rank: int | None = setting(
        None, "of the low-rank updates; the checkpoint's where not given, or 4", least=1
    )
    sizes: Mapping[str, Any] = setting({}, "as for the explainee; the checkpoint's where not given")

    def completed(self, saved: MaskDrawer | None = None) -> MaskDrawer:
        """With what was not given as a checkpoint has it, or as it is without one."""
        usual: dict[str, Any] = {
            **{"activation": "sigmoid", "frozen_blocks": 0, "lora_rank": 4},
            **{"classes": 1, "head": "plain", "edge_radius": 0},
        }
        if saved is not None:
            usual = {name: getattr(saved.completed(), name) for name in usual}
        missing = {name: value for name, value in usual.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **missing)

    def check_together(self, prefix: str) -> None:
        """A mask has no network, and a network has no start."""
        if self.trained != "mask":
            if self.start is not None or self.grid is not None:
                raise InputError(
                    f"{prefix}start and {prefix}grid are a mask's: leave them out, or set "
                    f"{prefix}trained to mask"
                )
            return
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        refused = ["frozen_blocks", "lora_rank", "head_bias", "classes", "head"]
        if self.checkpoint is None:
            refused += ["edge_radius", "weights", "activation", "name", "sizes"]
        for name in refused:
            if getattr(self, name) not in (defaults[name], {}):
                raise InputError(
                    f"{prefix}{name} is a network's, and {prefix}trained is mask: leave it out, or "
                    f"set {prefix}trained to all, head or lora"
                )
        if self.start == "pltx" and self.checkpoint is None:
            raise InputError(f"{prefix}start=pltx needs {prefix}checkpoint: give an explainer's")
        if self.checkpoint is not None and self.start not in (None, "pltx"):
            raise InputError(
                f"{prefix}checkpoint is not used by {prefix}start={self.start}: leave one out"
            )


@dataclass(frozen=True)
class Objective(Section):
    """What makes a mask good: terms of the LTX objective (arXiv 2310.16584), and further ones."""

    mask_weight: float = setting(5.0, "λ, of the mask term; the prediction term has 1", least=0)
    mask_loss: Literal["bce", "l1", "entropy"] = setting("bce", "the mask term")
    logits_only: bool = setting(False, "the prediction term is minus the target's logit")
    counterfactual: bool = setting(
        False, "the prediction term also asks that the class go where the marked pixels do"
    )
    terms: Mapping[str, float] = setting(
        {"budget": 2.0, "total_variation": 3.0}, "weights of further terms by name"
    )
    fills: tuple[str, ...] = setting(
        ("black", "black", "mean", "blur"),
        "of these one is drawn in each step for what a mask hides; twice as often if named twice",
    )
    least_budget: float = setting(0.05, "least share of the pixels that a budget keeps")
    most_budget: float = setting(0.95, "greatest share of them")
    shift: float = setting(
        0.0,
        "cells by which an image is moved in each step at most, its masks with it",
        least=0,
        most=1,
    )

    def weights(self) -> dict[str, float]:
        """Weights of its terms by the names they have in `objectives`; of the further ones those
        that are not 0."""
        further = {name: weight for name, weight in self.terms.items() if weight}
        prediction = PREDICTION_TERMS[self.logits_only, self.counterfactual]
        return {prediction: 1.0, MASK_TERMS[self.mask_loss]: self.mask_weight} | further

    def check_together(self, prefix: str) -> None:
        """Weights push one way; budgets lie inside (0,1)."""
        if wrong := [name for name, weight in self.terms.items() if weight < 0]:
            weight = self.terms[wrong[0]]
            raise InputError(f"{prefix}terms.{wrong[0]} is {weight}: it must be at least 0")
        if not 0 < self.least_budget <= self.most_budget < 1:
            raise InputError(
                f"{prefix}least_budget is {self.least_budget} and {prefix}most_budget "
                f"{self.most_budget}: they are shares of the pixels, above 0, below 1, in order"
            )
        if not self.fills:
            raise InputError(f"{prefix}fills is empty: give one at least, e.g. ('black',)")


@dataclass(frozen=True)
class Finetune(Section):
    """How the explainer is finetuned on one image (the method's second stage)."""

    steps: int = setting(
        50, "most masks an image gets; 0 for the explainer's as it is", least=0, most=100_000
    )
    slots: int | None = setting(
        None, "images side by side on each device; as many as are of use and fit", least=1
    )
    chunk: int | None = setting(
        None, "most images in one forward of the explainee; as many as are of use and fit", least=1
    )
    learning_rate: float = setting(0.3, "of AdamW; the schedule's peak where resumed", least=0)
    resume: bool = setting(
        False, "resume the checkpoint's Adam moments, step count and schedule, as the original"
    )
    schedule_steps: int = setting(
        1_250_000,
        "of that schedule; the original's 25 masks of 50,000 images",
        least=1,
        most=_LONGEST,
    )
    optimize: Literal["pos", "neg", "srg_probability"] | None = setting(
        None,
        "the score that selects a mask: pos or neg, by which an image stops as well, or the "
        "difference of ins and del, which takes both; if not given the last mask is the result",
    )
    keep: float = setting(
        0.9,
        "share of the class's probability that the last mask keeps, whatever the fill: it shows as "
        "few pixels as that takes",
        least=0,
    )
    stop_below: float = setting(6.0, "an image stops once its POS is below")
    stop_above: float = setting(89.0, "or its NEG above")
    lazy_scoring: bool = setting(
        True, "stop scoring a mask once it cannot be selected; False for a trace without gaps"
    )
    weight_decay: float = setting(0.0, "of AdamW", least=0)
    first_moment: Literal["float32", "bfloat16"] = setting(
        "float32", "type that Adam's first moment is kept in; bfloat16 saves an eighth of a slot"
    )
    second_moment: Literal["full", "factored"] = setting(
        "full", "factored keeps means over rows and columns (Adafactor) and saves a quarter"
    )


@dataclass(frozen=True)
class Pretrain(Section):
    """How an explainer is trained for a data set (the method's first stage)."""

    epochs: int = setting(30, "passes through the training images", least=1)
    batch_size: int = setting(32, "images a step", least=1)
    learning_rate: float = setting(2e-3, "the schedule's peak", least=0)
    warmup: float = setting(0.2, "share of the schedule in which the rate rises", least=0, most=1)
    schedule_steps: int = setting(
        0, "length of the schedule; 0 for the steps taken", least=0, most=_LONGEST
    )
    weight_decay: float = setting(0.01, "of AdamW", least=0)
    clip: float | None = setting(
        None, "longest a step's gradient may be, all leaves together; longer ones are shortened"
    )
    accumulate: int = setting(
        1, "parts of a batch that are computed one after another, for want of memory", least=1
    )
    sharded: bool = setting(
        False, "parameters and optimizer divided over the devices, not copied to each"
    )
    images_per_class: int = setting(0, "drawn for training; 0 for all", least=0)
    validation: float = setting(
        0.1, "share of the images held out to choose the best epoch", least=0, most=1
    )
    test: float = setting(0.1, "share kept from both, for what unseen_by asks for", least=0, most=1)
    train: str | None = setting(
        None, "start:stop, the images to train on, where chance is not to draw them"
    )
    validate: str | None = setting(None, "start:stop, those to choose the best epoch by")
    held_out: str | None = setting(
        None,
        "images of their own to choose the best epoch by, of the same data set: all of `images` "
        "are trained on then",
    )
    select: Literal["pos", "neg", "loss", "last"] | None = setting(
        None,
        "what chooses the epoch by those held out: of one mask an image the lowest POS, or the "
        "highest NEG; of classifiers, masks of every class and words the lowest loss; or last",
    )
    overlap: bool = setting(
        False, "train on all images, those held out among them, as the original"
    )
    patience: int | None = setting(
        None, "epochs without a better one after which to stop; if not given never", least=1
    )
    least_better: float = setting(
        0.0, "by how much an epoch's score has to be better to count as that for patience", least=0
    )
    plateau: int | None = setting(
        None,
        "epochs without a better one after which the rate falls to a tenth, each time; if not "
        "given never",
        least=1,
    )
    workers: int = setting(0, "processes that load images; 0 for threads", least=0)
    save_every: int | None = setting(
        None, "steps between checkpoints within an epoch; each epoch's end has one", least=1
    )
    keep: int = setting(2, "newest checkpoints that are kept, beside the best", least=1)
    log_every: int = setting(50, "steps between lines of the log", least=1)
    tensorboard: bool = setting(False, "a log for TensorBoard as well (needs tensorboardX)")
    pictures: int = setting(8, "images held out whose masks the page shows", least=0)

    def check_together(self, prefix: str) -> None:
        """Parts divide a batch, shares leave something, and slices come in twos."""
        if self.batch_size % self.accumulate:
            raise InputError(
                f"{prefix}batch_size is {self.batch_size}, and {prefix}accumulate "
                f"{self.accumulate}: give parts that divide it"
            )
        if self.held_out is not None and self.overlap:
            raise InputError(
                f"{prefix}held_out are images of their own, and {prefix}overlap trains on those "
                "that are held out: leave one out"
            )
        if self.validation + self.test >= 1:
            raise InputError(
                f"{prefix}validation is {self.validation} and {prefix}test {self.test}: together "
                "they must be below 1, so that something is left to train on"
            )
        if (self.train is None) != (self.validate is None):
            raise InputError(f"give both {prefix}train and {prefix}validate, or neither")
        if self.held_out is not None and self.train is not None:
            raise InputError(
                f"{prefix}held_out are images of their own, and {prefix}validate is a slice: leave "
                "one out"
            )
        for name in ("plateau", "patience"):
            if getattr(self, name) is not None and self.select == "last":
                raise InputError(
                    f"{prefix}{name} goes by the score that chooses the epoch, and {prefix}select "
                    "is last, which has none: leave one out"
                )
        if self.clip is not None and self.clip <= 0:
            raise InputError(f"{prefix}clip is {self.clip}: it must be above 0")


@dataclass(frozen=True)
class ClassMasks(Section):
    """What makes masks of every class good (NN-Explainer, NeurIPS 2022): weights of its terms."""

    objective: Literal[
        "nn_explainer", "some_classes", "real_time_saliency", "self_explainer", "budget"
    ] = setting(
        "nn_explainer",
        "the paper's; the paper's of a random part of an image's classes a step, so that each "
        "class's mask shows its own object; Real-Time Saliency's; that of masks which classify "
        "themselves; or `objective`, the section, of one class of each image a step",
    )
    prediction: float = setting(1.0, "the classifier still holds the image's classes", least=0)
    entropy: float = setting(1.0, "it holds nothing of what the mask leaves", least=0)
    variation: float = setting(1.0, "differences between neighbouring pixels", least=0)
    class_area: float = setting(1.0, "each class has a share of the pixels", least=0)
    target_area: float = setting(0.1, "area of the mask of the image's classes", least=0)
    other_area: float = setting(0.3, "area of the mask of all other classes", least=0)
    least: float = setting(0.05, "least share of the pixels of a class", least=0, most=1)
    most: float = setting(0.3, "greatest share of them", least=0, most=1)

    def check_together(self, prefix: str) -> None:
        """Shares are in order."""
        if self.least > self.most:
            raise InputError(
                f"{prefix}least is {self.least} and {prefix}most {self.most}: give them in order"
            )


@dataclass(frozen=True)
class Words(Section):
    """A CNN's filters in words (LaViSE, CVPR 2022): what is learnt, and what is asked for."""

    vectors: str | None = setting(
        None,
        "an embedding of words: GloVe's or word2vec's file, a .json, or an .npz with `vectors` and "
        "`words`",
    )
    layer: str | None = setting(
        None,
        "name of the explainee's features that the network reads; the checkpoint's where not "
        "given, or features",
    )
    supervised: float = setting(
        0.8, "share of the concepts that it learns; the others are to be discovered", most=1
    )
    least: int = setting(
        1, "images that a concept has to be in, or else it is in neither part", least=1
    )
    margin: float = setting(
        1.0, "by how much an object's words should be nearer than others, by their cosine", least=0
    )
    checkpoint: str | None = setting(
        None, "of task=explain_filters: words.safetensors of a training, which says its layer"
    )
    filters: tuple[int, ...] = setting((), "numbers of those to explain; all where not given")
    stands: Literal["projection", "masked_features", "masked_image", "image"] = setting(
        "projection",
        "what stands for a filter in an image: the layer's features, by where it fires and how "
        "strongly, or by where above its threshold; those of the image seen there; or of all of it",
    )
    strongest: int = setting(
        25, "images in which a filter fires most, to find its words by", least=1
    )
    nearest: int = setting(5, "words of each of these images that count", least=1)
    handicap: float | None = setting(
        None,
        "so that words are found that the network was not told: each counts as near as it is nearer"
        " than usual, by its cosine, and those that it was told by so much less (calibrated "
        "stacking, Chao et al., ECCV 2016); the original has none",
        least=0,
    )

    def check_together(self, prefix: str) -> None:
        """Some concept is learnt; filters are counted from 0."""
        if self.supervised <= 0:
            raise InputError(f"{prefix}supervised is {self.supervised}: it must be above 0")
        if wrong := [f for f in self.filters if type(f) is not int or f < 0]:
            raise InputError(f"{prefix}filters has {wrong[0]!r}: give numbers from 0 on, e.g. (3,)")


@dataclass(frozen=True)
class Evaluate(Section):
    """Scores of maps of any origin."""

    masks: str | None = setting(
        None,
        "a work directory, a folder of .npy, of NN-Explainer's .npz, or of the original's "
        "objects_pkl; if not given what the run in --workdir stored, or rivals alone",
    )
    scored_for: Literal["explained", "predicted", "label", "both"] = setting(
        "explained", "the class that masks are scored for: the one that each explains, or others"
    )
    reference: str | None = setting(
        None, "the method that others are compared with; our mask where there is one"
    )
    merged: bool = setting(
        False,
        "also the masks of an image's rows merged by their maximum, against all its objects and "
        "beside constant masks and the perfect one (NN-Explainer's evaluation)",
    )
    class_table: bool = setting(
        False,
        "also the table image class × mask class, of an explainer with a mask for every class and "
        "of each rival; nine forwards an image and class",
    )


@dataclass(frozen=True)
class Report(Section):
    """What is shown of a run."""

    overlays: int = setting(1000, "most pictures written", least=0)
    gallery: int = setting(100, "most images shown on the page", least=0)
    masked: bool = setting(
        False,
        "also each row's mask and the image through it as .png of their own (`pixel_masks/`, "
        "`masked/`)",
    )


@dataclass(frozen=True)
class Settings(Section):
    """All settings of the main command."""

    task: Literal[
        "explain", "pretrain", "evaluate", "train_classifier", "train_words", "explain_filters"
    ] = setting(
        "explain",
        "explain images, pretrain an explainer for them, score maps of them, train an explainee, "
        "train what finds words for its filters, or find them",
    )
    images: str | None = setting(
        None,
        "a folder, a text file of paths, an .npz, or `scenes` or `concepts` (made on the spot)",
    )
    dataset: (
        Literal["imagenet", "imagenet_segmentation", "coco", "voc", "cub", "visual_genome", "tfds"]
        | None
    ) = setting(
        None,
        "what `images` holds as it is published; of tfds NAME:SPLIT, e.g. imagenet2012:train",
    )
    least_images: int = setting(
        100, "of visual_genome: images that a name has to be in to be a class", least=1
    )
    objects: tuple[int, ...] = setting(
        (1, 2), "of `scenes` and `concepts`: fewest and most in each, up to 4"
    )
    labels: str | None = setting(
        None,
        "`folders`: a class each, in sorted order; `classes` of coco or voc, or of voc those "
        "`not_difficult`; .json {name: index}; .csv img_name,label; or text: an index a line, or "
        "NAME INDEX a line",
    )
    class_names: str | None = setting(None, ".json or text, one a class, for people")
    target: Literal["predicted", "label", "labels", "held", "every"] = setting(
        "predicted",
        "the class that is explained: the most likely one; the label, which each image has; or a "
        "row each for the labels of the images that have any; for the classes held to be there "
        "(p > 0.5, or the most likely: every image is predicted before the run begins); or for "
        "every class",
    )
    classes: tuple[str | int, ...] = setting(
        (), "of the labels, those held, or every class only these, by name or number"
    )
    label_rows: str | None = setting(
        None, "start:stop:step; of these images each label is explained, whatever target says"
    )
    resize: Literal["squash", "crop"] = setting(
        "squash", "to the explainee's size; crop is what its weights were evaluated with"
    )
    compute_dtype: Literal["float32", "bfloat16"] = setting("float32", "of both networks")
    attention: Literal["xla", "cudnn"] = setting(
        "xla", "cudnn: fused, for ViTs in bfloat16 on CUDA GPUs"
    )
    limit: int | None = setting(None, "at most so many images", least=1)
    indices: str | None = setting(None, "a slice of them, start:stop:step")
    subset: int | None = setting(
        None, "of these so many, drawn by the seed and left in their order", least=1
    )
    unseen_by: str | None = setting(
        None, "a pretraining's work directory: only images that it did not learn or choose by"
    )
    seed: int = setting(0, "of everything that is drawn", least=0, most=2**32 - 1)
    # Network file systems may show a sign of life a minute late.
    lost_after: float = setting(
        120.0,
        "seconds without a sign of life after which others do what a process of --share has begun",
        least=1,
    )
    rivals: tuple[str, ...] = setting((), "other methods to compare with, by name")
    scores: tuple[str, ...] = setting((), "further scores by name; the usual ones are always there")
    explainee: Network = field(default_factory=Network)
    explainer: MaskDrawer = field(default_factory=MaskDrawer)
    objective: Objective = field(default_factory=Objective)
    finetune: Finetune = field(default_factory=Finetune)
    pretrain: Pretrain = field(default_factory=Pretrain)
    class_masks: ClassMasks = field(default_factory=ClassMasks)
    words: Words = field(default_factory=Words)
    evaluate: Evaluate = field(default_factory=Evaluate)
    report: Report = field(default_factory=Report)

    def check_together(self, prefix: str) -> None:
        """What is trained fits the task."""
        explainer = self.explainer
        if self.finetune.resume and self.task == "explain":
            if explainer.trained == "mask":
                raise InputError(
                    f"{prefix}finetune.resume is for a network, and {prefix}explainer.trained is "
                    "mask: leave it out"
                )
            if explainer.checkpoint is None:
                raise InputError(
                    f"{prefix}finetune.resume needs an optimizer state: give "
                    f"{prefix}explainer.checkpoint"
                )
        between = len(self.objects) == 2 and all(n in range(5) for n in self.objects)
        if not between or self.objects[0] > self.objects[1]:
            raise InputError(
                f"{prefix}objects is {self.objects}: expected (fewest, most), up to 4, e.g. (2, 4)"
            )
        if self.classes and self.target == "predicted":
            raise InputError(
                f"{prefix}classes chooses among several classes of an image, and {prefix}target is "
                "predicted: set that to labels, held or every"
            )
        if self.task not in ("explain", "evaluate") and self.unseen_by is not None:
            raise InputError(
                f"{prefix}unseen_by is for task=explain and evaluate: to choose what is trained on "
                f"give {prefix}pretrain.train and {prefix}pretrain.validate"
            )
        if self.task == "pretrain" and explainer.trained == "mask":
            raise InputError(
                f"{prefix}task=pretrain trains a network, and {prefix}explainer.trained is mask: "
                "set it to all"
            )


# The paper's (LTX, arXiv 2310.16584): a network is finetuned, black is the only fill, and the score
# that is reported selects the mask.
LTX = Settings(
    explainer=MaskDrawer(trained="all"),
    objective=Objective(mask_weight=50.0, terms={}, fills=("black",)),
    finetune=Finetune(steps=25, learning_rate=2e-3, optimize="pos", weight_decay=0.01),
)

# NN-Explainer's (NeurIPS 2022): DeepLabv3 draws the masks; Adam at one rate, until the loss on
# images held out has not fallen for a few epochs.
NN_EXPLAINER = dataclasses.replace(
    LTX,
    target="labels",
    scores=("f1_25", "f1_50", "f1_75", "f1_mean", "soft_f1", "iou_mean", "soft_iou"),
    explainee=Network(link="sigmoid", trained="head"),
    explainer=MaskDrawer(
        trained="all", name="resnet50", head="deeplab", sizes={"dilated": (False, True, True)}
    ),
    finetune=dataclasses.replace(LTX.finetune, steps=0),
    pretrain=Pretrain(
        epochs=100,
        batch_size=16,
        warmup=0.0,
        schedule_steps=1_000_000_000,
        weight_decay=0.0,
        test=0.0,
        patience=5,
        least_better=0.001,
    ),
)

# LaViSE's (CVPR 2022, arXiv 2204.04601): Adam at one rate, which falls where the loss on images
# held out does not; after some more such epochs it stops.
LAVISE = Settings(
    task="explain_filters",
    pretrain=Pretrain(
        epochs=10,
        learning_rate=1e-4,
        warmup=0.0,
        schedule_steps=1_000_000_000,
        weight_decay=0.0,
        test=0.0,
        patience=5,
        plateau=2,
    ),
)
