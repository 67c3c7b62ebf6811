"""What is made of rows: statistics, tables, figures, and the report."""
