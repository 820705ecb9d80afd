"""One institution: its policy, its turns, its connection outwards."""
