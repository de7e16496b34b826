"""Archives, pickles and downloads, none of which is trusted."""
