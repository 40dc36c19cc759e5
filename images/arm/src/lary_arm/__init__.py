"""The arm of the demo sets as a world that policies act in. A toy: it shows that an evaluation works, and no more."""
