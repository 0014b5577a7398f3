// Command imagekey prints the key of the golden image that belongs to the
// anteroom-guest program which it is given, once that image is there.
package main

import (
	"fmt"
	"os"

	"github.com/anteroom/anteroom/internal/image"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: imagekey ANTEROOM-GUEST")
		os.Exit(2)
	}
	dir := os.Getenv("ANTEROOM_IMAGE_DIR")
	if dir == "" {
		dir = "/var/cache/anteroom"
	}
	img, err := image.Find(image.Config{Dir: dir, Guest: os.Args[1]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(img.Key)
}
