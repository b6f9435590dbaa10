"""Every setting, and how a configuration becomes them."""
