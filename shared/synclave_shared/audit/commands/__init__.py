"""The commands of ``synclave-audit``, one file each: they read, print, and compute nothing themselves."""
