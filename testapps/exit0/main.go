// Command exit0 ends at once, successfully and without having served.
package main

func main() {}
