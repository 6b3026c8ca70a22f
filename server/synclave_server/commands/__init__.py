"""The commands of ``synclave``, one file each. Slow modules load in a call, so that the help is there at once."""
