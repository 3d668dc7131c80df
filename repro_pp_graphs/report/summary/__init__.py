"""What a run says, as data: summary.json with its verdict, its sweep and its remarks."""
