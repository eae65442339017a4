"""SemPLeS: matching, prompt learning, prompt-guided refinement."""
