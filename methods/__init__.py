"""Distillation methods and controls: one public class per file; files with `_` are shared maths."""
