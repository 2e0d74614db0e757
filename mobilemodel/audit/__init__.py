"""Where every byte goes: the conversion report, and what other settings would weigh."""
