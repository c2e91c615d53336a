"""Settings of a training small enough for a test."""

import yaml

from training.settings import Settings

MODEL = {
    "input": {"shorter_side": 64, "longer_side": 96, "channel_order": "rgb"},
    "backbone": {"name": "resnet18", "width": 0.125, "norm": "batch", "norm_eps": 1e-5},
    "rpn": {"anchor_sizes": [24, 48], "anchor_ratios": [1], "pre_nms_top_n": 50},
    "roi": {"size": 3, "reduce_channels": 8},
    "relation": {"dim": 32, "heads": 2},
    "dials": {"window": 4, "num_support": 4, "num_reference": 8, "advanced_ratio": 0.5},
}


def synthetic(**changes):
    return {"synthetic": {"num_videos": 4, "num_frames": 6, "size": [96, 64], **changes}}


def phase(**changes):
    return {"name": "only", "iterations": 6, "learning_rate": 3e-3, "relation": "full", "clips": 2, **changes}


def plain(**changes):
    return {
        "model": MODEL,
        "data": {"train": [synthetic()], "exchange_colours": True},
        "phases": [phase()],
        "rois_per_frame": 8,
        "warm_up": 1,
        "save_every": 3,
        "log_every": 2,
        **changes,
    }


def write_settings(path, **changes):
    path.write_text(yaml.safe_dump(plain(**changes)))
    return path


def micro(**changes):
    return Settings.from_plain(plain(**changes))
