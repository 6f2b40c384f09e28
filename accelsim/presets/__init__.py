"""Accelerators that come with the program: `accelsim.config.load_accelerator` reads them by name."""
