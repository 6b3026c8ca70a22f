"""The commands of ``synclave-site``, one file each; what belongs together shares one. Slow modules load in a call."""
