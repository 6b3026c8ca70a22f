"""Private training at a site: everything between a patient's record and a noised, bounded release."""
