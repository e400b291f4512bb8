package main

type trigger struct {
	path, name string
	from, to   string
	size       int64
	program    bool
	sources    bool
	what       string
}

type watcher struct{}

func (*watcher) built()      {}
func (*watcher) runs(string) {}
func (*watcher) look()       {}
