/** Text of an element, written only where it is another: each writing costs the browser a layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
