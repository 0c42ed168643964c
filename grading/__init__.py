"""Is an answer right? Answers, choices and programs."""
