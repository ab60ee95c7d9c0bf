"""Where a training run leaves its policies."""

import re

CHECKPOINT = re.compile(r"(^|/)checkpoints/[^/]+/pretrained_model/?$")
