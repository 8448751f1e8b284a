#!/bin/bash
# Copies each file that is newer than its copy; a copy is whole or as it was before:
#   bash experiments/copy_newer.sh FOLDER FILE…
to=$1
shift
for file in "$@"; do
  [ "$file" -nt "$to/${file##*/}" ] && cp -p "$file" "$to/.copy" && mv "$to/.copy" "$to/${file##*/}"
done 2>/dev/null
