"""Everything that runs the product elsewhere: the chart, the dashboard, the rules."""
