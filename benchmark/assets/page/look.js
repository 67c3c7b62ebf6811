// Before anything is shown: the look that was chosen here last, if any.
try {
  document.documentElement.style.colorScheme = localStorage.getItem("look") ?? "";
} catch {
  // a browser that keeps nothing follows the system
}
