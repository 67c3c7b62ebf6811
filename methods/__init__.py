"""Distillation methods and controls: one public class per file; `_` files are shared code."""
