"""What the operating system gives: files that survive a crash, claimed folders, memory, servers."""
