"""From rows to results: statistics, tables, figures, and the report."""
