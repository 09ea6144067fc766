"""What the trunks of all post-norm models have in common, whatever format they come in."""

POST_NORM = {
    "norm": "post",
    "drop_path": 0.0,
    "layer_scale": None,
    "key_bias": True,
    "final_norm": False,
    "init": "normal",
}
