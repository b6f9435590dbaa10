"""Every setting of the main command, with its default; an experiment in `configs/` changes some."""

from __future__ import annotations

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def defaults() -> ConfigDict:
    """The settings that a configuration file starts from; `None` means not given."""
    config = ConfigDict()
    # pretrain: an explainer for a data set; finetune: explain images; evaluate: the pretrained
    # explainer's masks as they are.
    config.task = "finetune"
    # A folder, a text file of paths, an .npz with `images`, or `scenes` (made on the spot).
    config.images = placeholder(str)
    config.labels = placeholder(str)  # .json name → index, or text: an index or "NAME INDEX" a line
    config.class_names = placeholder(str)  # .json or text, for people
    config.resize = "squash"  # or crop: what the explainee's weights were evaluated with
    config.compute_dtype = "float32"  # or bfloat16
    config.attention = "xla"  # or cudnn: fused, for ViTs in bfloat16 on CUDA GPUs
    config.limit = placeholder(int)  # at most so many images
    config.indices = placeholder(str)  # a slice of them, start:stop
    config.seed = 0

    config.explainee = ConfigDict()
    config.explainee.name = "vit_base_patch16_224"
    config.explainee.weights = placeholder(str)  # a file; from the hub where not given
    # Module attributes unlike the published network's.
    config.explainee.sizes = ConfigDict({"num_classes": placeholder(int)})

    config.explainer = ConfigDict()
    config.explainer.name = placeholder(str)  # the explainee's network where not given
    config.explainer.weights = placeholder(str)
    config.explainer.checkpoint = placeholder(str)
    config.explainer.activation = "sigmoid"
    config.explainer.head_bias = placeholder(float)
    config.explainer.trained = "all"  # or head (of the mask alone), lora (and low-rank updates)
    config.explainer.frozen_blocks = 0  # of a ViT, from the first on
    config.explainer.lora_rank = 4
    config.explainer.sizes = ConfigDict()

    config.objective = ConfigDict()
    config.objective.mask_weight = 50.0
    config.objective.mask_loss = "bce"  # or l1, entropy
    config.objective.target = "predicted"  # or label
    config.objective.logits_only = False
    config.objective.counterfactual = False

    config.finetune = ConfigDict()
    config.finetune.steps = 25  # most masks an image gets
    # Images side by side on each device; as many as are of use and fit where not given.
    config.finetune.slots = placeholder(int)
    # Most images in one forward of the explainee; as many as are of use and fit where not given.
    config.finetune.chunk = placeholder(int)
    config.finetune.learning_rate = 2e-3
    # Resume the checkpoint's Adam moments, step count and learning rate, then follow a schedule of
    # `schedule_steps` whose peak is `learning_rate`.
    config.finetune.resume = False
    config.finetune.schedule_steps = 1_250_000  # the original's 25 masks of 50,000 images
    config.finetune.stop_below = 6.0
    config.finetune.stop_above = 89.0
    config.finetune.optimize = "pos"  # or neg
    # Stop scoring a mask once it cannot be selected: the same masks and scores sooner; False for a
    # trace without gaps.
    config.finetune.lazy_scoring = True
    config.finetune.weight_decay = 0.01
    config.finetune.first_moment = "float32"  # or bfloat16: an eighth of a slot's memory less
    config.finetune.second_moment = "full"  # or factored: a quarter less

    config.pretrain = ConfigDict()
    config.pretrain.epochs = 30
    config.pretrain.batch_size = 32
    config.pretrain.learning_rate = 2e-3
    config.pretrain.warmup = 0.2  # share of the schedule
    config.pretrain.schedule_steps = 0  # 0: the steps really taken
    config.pretrain.weight_decay = 0.01
    config.pretrain.images_per_class = 0  # 0: all
    config.pretrain.validation = 0.1  # share of the images held out to choose the best epoch

    config.rivals = ()  # other methods to compare with: integrated_gradients

    config.report = ConfigDict()
    config.report.overlays = 1000  # most pictures written
    config.report.gallery = 100  # most images shown on the page
    return config
