"""What only looks at a finished study: its arms over seeds, and the differences that it asks for."""
