// Command exit0 ends at once, and well: before it was ever ready.
package main

func main() {}
