document.title = "Trade-Back";
