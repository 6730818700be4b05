"""The story of one connection, as an expert would tell it: sentences, findings, a chart."""
